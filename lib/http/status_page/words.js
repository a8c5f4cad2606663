/** Formats numbers and states for display. */

/** Formats ms as `0.4 s`, `12 s`, `3 min`, `1.5 h`, `4 days` or `55 years`, with a no-break space. */
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

/** Formats ms as `3.2 ms`, and from one second on as `duration`. */
export function shortDuration(/** @type {number} */ ms) {
  return ms < 1000 ? `${Number(ms.toPrecision(3))}\u00a0ms` : duration(ms);
}

/** Formats a number as `1,234,567`, in every language of the browser. */
export function count(/** @type {number} */ number) {
  return number.toLocaleString("en");
}

/** `1 message`, `2 messages`. */
export function messages(/** @type {number} */ number) {
  return `${count(number)} ${number === 1 ? "message" : "messages"}`;
}

/** Formats bytes as `12.3 MB`. */
export function bytes(/** @type {number} */ number) {
  if (number < 1e6) return `${Math.ceil(number / 1000)} kB`;
  return number < 1e9 ? `${(number / 1e6).toFixed(1)} MB` : `${(number / 1e9).toFixed(1)} GB`;
}

/**
 * Shortens the text of a number to 7 digits, or 12 if it is an integer. Returns other texts unchanged.
 */
export function value(/** @type {string} */ text) {
  const number = Number(text);
  if (!Number.isFinite(number) || text === "") return text;
  if (Number.isInteger(number) && Math.abs(number) < 1e12) return String(number);
  const digits = String(Number(number.toPrecision(7)));
  return digits.length <= 12 ? digits : number.toExponential(6);
}

/** A message that waits longer is reported although both connections work. */
const LONG_MS = 5000;

/** Whether messages wait that should be stored already. */
export function isBehind(
  /** @type {import("../../monitoring/status.ts").Summary} */ { counts, oldestWaitingMs },
) {
  return counts.spooled > 0 || (counts.waiting > 0 && (oldestWaitingMs ?? 0) > LONG_MS);
}

/**
 * The state of the logger in one sentence. `news` is the same without numbers, so that it changes
 * only with the state.
 *
 * @param {import("../../monitoring/status.ts").Summary} summary
 * @param {{ stale: number, unknown: number }} sensors the numbers of stale and unknown sensors
 * @returns {{ level: "good" | "warn" | "bad", text: string, news: string }}
 */
export function verdict(summary, sensors) {
  const { problem, broker, database, spool, counts, oldestWaitingMs, nowMs } = summary;
  if (problem !== null) {
    return bad(`The logger is stuck: ${problem}.`, "The logger is stuck.");
  }
  if (spool !== null && spool.problem !== null) {
    return bad("The spool is not accepting messages. New messages stay with the broker.");
  }
  const waiting = counts.spooled + counts.waiting;
  if (!database.connected) {
    const where = spool === null
      ? "Messages that the logger cannot hold stay with the broker."
      : `${wait(waiting)}; nothing is lost.`;
    const since = duration(nowMs - database.sinceMs);
    return bad(
      `The database has been unavailable for ${since}. ${where}`,
      "The database is unavailable.",
    );
  }
  if (!broker.connected) {
    const since = duration(nowMs - broker.sinceMs);
    return bad(
      `No connection to the broker for ${since}. No messages are received.`,
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
      "messages are waiting",
    ],
    [rejected > 0, `${was(rejected, "message")} rejected`, "messages were rejected"],
    [dropped > 0, `${was(dropped, "message")} dropped`, "messages were dropped"],
    [unknown > 0, `${is(unknown, "sensor")} not registered`, "sensors are not registered"],
    [stale > 0, `${is(stale, "sensor")} stale`, "sensors are stale"],
  ];
  const problems = all.filter(([isThere]) => isThere);
  if (problems.length === 0) {
    const text = "Both connections work, no message is waiting.";
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

/** `1 message is waiting`, `2 messages are waiting`. */
function wait(/** @type {number} */ number) {
  return `${messages(number)} ${number === 1 ? "is" : "are"} waiting`;
}

/** `1 message was`, `2 messages were`. */
function was(/** @type {number} */ number, /** @type {string} */ thing) {
  return number === 1 ? `1 ${thing} was` : `${count(number)} ${thing}s were`;
}

/** `1 sensor is`, `2 sensors are`. */
function is(/** @type {number} */ number, /** @type {string} */ thing) {
  return number === 1 ? `1 ${thing} is` : `${count(number)} ${thing}s are`;
}
