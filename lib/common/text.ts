/** Formatting for logs and terminals: escaped control characters, counts and times. */

/**
 * Escapes control characters as `\u001b`. A payload may contain them, and they must not break a log
 * line or forge another one.
 */
export function escapeControls(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, escapeCharacter);
}

function escapeCharacter(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** A number with its noun: `1 message`, `2 messages`. The plural of the noun must end in `s`. */
export function formatCount(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** A time as `2026-11-23 17:31:56.480`, in the time zone of the host. */
export function formatLocalTime(time: Date): string {
  const pad = (value: number, digits = 2): string => String(value).padStart(digits, "0");
  const day = [time.getFullYear(), pad(time.getMonth() + 1), pad(time.getDate())].join("-");
  const clock = [time.getHours(), time.getMinutes(), time.getSeconds()].map((part) => pad(part));
  return `${day} ${clock.join(":")}.${pad(time.getMilliseconds(), 3)}`;
}

/** A time in ms since 1970-01-01 00:00 UTC as `2026-11-23 17:31:56`, in the host's time zone. */
export function formatTime(timeMs: number): string {
  return formatLocalTime(new Date(timeMs)).slice(0, -4);
}

/** A time in ms since 1970-01-01 00:00 UTC as `17:31:56`, in the time zone of the host. */
export function formatClock(timeMs: number): string {
  return formatTime(timeMs).slice(-8);
}
