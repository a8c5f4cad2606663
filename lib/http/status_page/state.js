/** What the logger has told: kept up to date by server-sent events. */

/** @typedef {import("../../monitoring/status.ts").Status} Status */
/** @typedef {import("../../monitoring/status.ts").Update} Update */
/** @typedef {import("../../monitoring/status.ts").SensorStatus} SensorStatus */
/** @typedef {import("../../monitoring/status.ts").SensorEntry} SensorEntry */

/** As it stands in the document: the logger may be anywhere below the root of a server. */
const ADDRESS = "api/events";

const MAX_SAMPLES = 15 * 60;
const MAX_RECENT = 60;
const RETRY_MS = 1000;

/** Without any event for so long the connection is taken for broken. */
const SILENCE_MS = 5000;

/**
 * Follows the logger for as long as the page can be seen.
 *
 * @param {object} listener
 * @param {(status: Status) => void} listener.onChange after every event
 * @param {(text: string) => void} listener.onLost when there is no connection; says so in words
 */
export function follow({ onChange, onLost }) {
  /** @type {EventSource | undefined} */
  let source;
  /** @type {number | undefined} */
  let timer;
  /** @type {Status | undefined} */
  let status;

  function close() {
    clearTimeout(timer);
    source?.close();
    source = undefined;
  }
  function open() {
    close();
    if (document.hidden) return;
    source = new EventSource(ADDRESS);
    source.addEventListener("error", lose);
    hear("status", (/** @type {Status} */ beginning) => beginning);
    hear("sensors", addSensors);
    hear("update", apply);
    timer = setTimeout(lose, SILENCE_MS);
  }
  /** @param {string} name @param {(data: any, status: Status) => Status} take */
  function hear(name, take) {
    source?.addEventListener(name, ({ data }) => {
      clearTimeout(timer);
      timer = setTimeout(lose, SILENCE_MS);
      status = take(JSON.parse(data), /** @type {Status} */ (status));
      onChange(status);
    });
  }
  async function lose() {
    close();
    const text = await explain();
    // Meanwhile somebody may have looked again.
    if (source !== undefined || document.hidden) return;
    onLost(text);
    timer = setTimeout(open, RETRY_MS);
  }

  document.addEventListener("visibilitychange", () => document.hidden ? close() : open());
  open();
}

/** Why there are no events, which their interface does not tell. */
async function explain() {
  const options = { method: "HEAD", signal: AbortSignal.timeout(RETRY_MS) };
  const response = await fetch(ADDRESS, options).catch(() => undefined);
  return response?.status === 503
    ? "As many look at this logger as it allows. Trying again …"
    : "No connection to the logger. Trying again …";
}

/**
 * @param {readonly SensorEntry[]} entries
 * @param {Status} status
 * @returns {Status}
 */
function addSensors(entries, status) {
  const sensors = [...status.sensors];
  for (const { index, ...sensor } of entries) sensors[index] = sensor;
  return { ...status, sensors };
}

/**
 * @param {Update} update
 * @param {Status} status
 * @returns {Status}
 */
function apply({ sample, changes, sensors: entries, ...summary }, status) {
  const { sensors } = addSensors(entries, status);
  for (const [index, state, value, timeMs, seenMs, intervalMs] of changes) {
    const sensor = sensors[index];
    if (sensor === undefined) continue;
    const number = Number(value);
    const recent = [...sensor.recent, Number.isFinite(number) ? number : null];
    /** @type {SensorStatus[]} */ (sensors)[index] = {
      ...sensor,
      ...{ state, value, timeMs, seenMs, intervalMs },
      recent: recent.slice(-MAX_RECENT),
    };
  }
  const history = [...status.history, sample].slice(-MAX_SAMPLES);
  return { ...status, ...summary, history, sensors };
}
