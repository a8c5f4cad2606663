/** Numbers and states in words. */

/** `0.4 s`, `12 s`, `3 min`, `1.5 h`, `4 days`, `55 years` for a time in ms, never in two lines. */
export function duration(/** @type {number} */ ms) {
  const seconds = Math.max(0, ms) / 1000;
  const days = seconds / 86400;
  const text = seconds < 10
    ? `${seconds.toFixed(1)} s`
    : seconds < 100
    ? `${Math.round(seconds)} s`
    : seconds < 6000
    ? `${Math.round(seconds / 60)} min`
    : days < 2
    ? `${(seconds / 3600).toFixed(1)} h`
    : days < 1000
    ? `${Math.round(days)} days`
    : `${Math.round(days / 365.25)} years`;
  return text.replace(" ", "\u00a0");
}

/** `3.2 ms`, and from a second on as `duration`. */
export function shortDuration(/** @type {number} */ ms) {
  return ms < 1000 ? `${Number(ms.toPrecision(3))}\u00a0ms` : duration(ms);
}

/** `1,234,567`, the same whatever the language of the browser. */
export function count(/** @type {number} */ number) {
  return number.toLocaleString("en");
}

/** `1 message`, `2 messages`. */
export function messages(/** @type {number} */ number) {
  return `${count(number)} ${number === 1 ? "message" : "messages"}`;
}

/** `12.3 MB` of bytes. */
export function bytes(/** @type {number} */ number) {
  if (number < 1e6) return `${Math.ceil(number / 1000)} kB`;
  return number < 1e9 ? `${(number / 1e6).toFixed(1)} MB` : `${(number / 1e9).toFixed(1)} GB`;
}

/**
 * The text of a number with at most 7 digits, or 12 of a whole one; what is not a number stays as it
 * is.
 */
export function value(/** @type {string} */ text) {
  const number = Number(text);
  if (!Number.isFinite(number) || text === "") return text;
  if (Number.isInteger(number) && Math.abs(number) < 1e12) return String(number);
  const digits = String(Number(number.toPrecision(7)));
  return digits.length <= 12 ? digits : number.toExponential(6);
}

/** A message that waits for longer is told of although the connections work. */
const LONG_MS = 5000;

/** Whether messages wait that should be stored by now. */
export function isBehind(
  /** @type {import("../../monitoring/status.ts").Summary} */ { counts, oldestWaitingMs },
) {
  return counts.spooled > 0 || (counts.waiting > 0 && (oldestWaitingMs ?? 0) > LONG_MS);
}

/**
 * How things stand, in one sentence. `news` is the same without the numbers: it changes only when
 * something happens.
 *
 * @param {import("../../monitoring/status.ts").Summary} summary
 * @param {{ stale: number, unknown: number }} sensors how many of them are so
 * @returns {{ level: "good" | "warn" | "bad", text: string, news: string }}
 */
export function verdict(summary, sensors) {
  const { problem, broker, database, spool, counts, oldestWaitingMs, nowMs } = summary;
  if (problem !== null) {
    return bad(`The logger stands still: ${problem}.`, "The logger stands still.");
  }
  if (spool !== null && spool.problem !== null) {
    return bad("The spool takes no more messages: they are left with the broker.");
  }
  const waiting = counts.spooled + counts.waiting;
  if (!database.connected) {
    const where = spool === null
      ? "What the logger cannot hold stays with the broker."
      : `${wait(waiting)}; nothing is lost.`;
    const since = duration(nowMs - database.sinceMs);
    return bad(`The database has been away for ${since}. ${where}`, "The database is away.");
  }
  if (!broker.connected) {
    const since = duration(nowMs - broker.sinceMs);
    return bad(
      `No connection to the broker for ${since}: nothing comes in.`,
      "No connection to the broker.",
    );
  }
  const { rejected, dropped } = counts;
  const { stale, unknown } = sensors;
  /** @type {[boolean, string, string][]} */
  const all = [
    [
      isBehind(summary),
      `${wait(waiting)}, the oldest for ${duration(oldestWaitingMs ?? 0)}`,
      "messages wait",
    ],
    [rejected > 0, `${was(rejected, "message")} rejected`, "messages were rejected"],
    [dropped > 0, `${was(dropped, "message")} dropped`, "messages were dropped"],
    [unknown > 0, `${is(unknown, "sensor")} not registered`, "sensors are not registered"],
    [stale > 0, `${is(stale, "sensor")} stale`, "sensors are stale"],
  ];
  const problems = all.filter(([isThere]) => isThere);
  if (problems.length === 0) {
    const text = "Both connections work, nothing waits.";
    return { level: "good", text, news: text };
  }
  const [text = "", news = ""] = [1, 2].map((column) =>
    `Both connections work, but ${problems.map((words) => words[column]).join(", ")}.`
  );
  return { level: "warn", text, news };
}

/** @returns {ReturnType<typeof verdict>} */
function bad(/** @type {string} */ text, news = text) {
  return { level: "bad", text, news };
}

/** `1 message waits`, `2 messages wait`. */
function wait(/** @type {number} */ number) {
  return `${messages(number)} ${number === 1 ? "waits" : "wait"}`;
}

/** `1 message was`, `2 messages were`. */
function was(/** @type {number} */ number, /** @type {string} */ thing) {
  return number === 1 ? `1 ${thing} was` : `${count(number)} ${thing}s were`;
}

/** `1 sensor is`, `2 sensors are`. */
function is(/** @type {number} */ number, /** @type {string} */ thing) {
  return number === 1 ? `1 ${thing} is` : `${count(number)} ${thing}s are`;
}
