/** Text that a person reads in a log or a terminal: control characters made visible, and times. */

/** Control characters, which a payload may hold, must not break the line or forge another. */
export function escapeControls(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, escapeCharacter);
}

function escapeCharacter(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** `2026-11-23 17:31:56.480` in the time zone of the host. */
export function formatLocalTime(time: Date): string {
  const pad = (value: number, digits = 2): string => String(value).padStart(digits, "0");
  const day = [time.getFullYear(), pad(time.getMonth() + 1), pad(time.getDate())].join("-");
  const clock = [time.getHours(), time.getMinutes(), time.getSeconds()].map((part) => pad(part));
  return `${day} ${clock.join(":")}.${pad(time.getMilliseconds(), 3)}`;
}

/** `2026-11-23 17:31:56` for a time in ms since 1970. */
export function formatTime(timeMs: number): string {
  return formatLocalTime(new Date(timeMs)).slice(0, -4);
}

/** `17:31:56`, for a time in ms since 1970. */
export function formatClock(timeMs: number): string {
  return formatTime(timeMs).slice(-8);
}
