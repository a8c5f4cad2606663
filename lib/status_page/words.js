/** Numbers and states in words. */

/** `0.4 s`, `12 s`, `3 min`, `1.5 h`, `4 days` for a time in ms. */
export function duration(/** @type {number} */ ms) {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
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

/** The text of a number with at most 7 digits; what is not a number stays as it is. */
export function value(/** @type {string} */ text) {
  const number = Number(text);
  return Number.isFinite(number) && text !== "" ? String(Number(number.toPrecision(7))) : text;
}

/**
 * How things stand, in one sentence.
 *
 * @param {import("../status.ts").Summary} summary
 * @returns {{ level: "good" | "warn" | "bad", text: string }}
 */
export function verdict({ problem, broker, database, spool, counts, nowMs }) {
  if (problem !== null) return { level: "bad", text: `The logger stands still: ${problem}.` };
  if (spool !== null && spool.problem !== null) {
    return {
      level: "bad",
      text: "The spool takes no more messages: they are left with the broker.",
    };
  }
  if (!database.connected) {
    const where = spool === null
      ? "What the logger cannot hold stays with the broker."
      : `${messages(counts.spooled + counts.waiting)} wait; nothing is lost.`;
    const since = duration(nowMs - database.sinceMs);
    return { level: "bad", text: `The database has been away for ${since}. ${where}` };
  }
  if (!broker.connected) {
    const since = duration(nowMs - broker.sinceMs);
    return { level: "bad", text: `No connection to the broker for ${since}: nothing comes in.` };
  }
  if (counts.spooled > 0) {
    return { level: "warn", text: `Catching up: ${messages(counts.spooled)} wait on disk.` };
  }
  return { level: "good", text: "Everything that came in is stored." };
}
