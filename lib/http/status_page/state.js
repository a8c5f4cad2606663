/** The status of the logger, kept up to date by server-sent events. */

/** @typedef {import("../../monitoring/status.ts").Status} Status */
/** @typedef {import("../../monitoring/status.ts").Update} Update */
/** @typedef {import("../../monitoring/status.ts").SensorStatus} SensorStatus */
/** @typedef {import("../../monitoring/status.ts").SensorEntry} SensorEntry */

/** A relative URL, because a reverse proxy may serve the logger below any path. */
const ADDRESS = "api/events";

const MAX_SAMPLES = 15 * 60;
const MAX_RECENT = 60;
const RETRY_MS = 1000;

/** Time without an event after which the connection counts as broken. */
const SILENCE_MS = 5000;

/**
 * Follows the logger while the page is visible.
 *
 * @param {object} listener
 * @param {(status: Status) => void} listener.onChange after every event
 * @param {(text: string) => void} listener.onLost when the connection is lost, with a text for the user
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
    listen("status", (/** @type {Status} */ initial) => initial);
    listen("sensors", addSensors);
    listen("update", apply);
    timer = setTimeout(lose, SILENCE_MS);
  }
  /** @param {string} name @param {(data: any, status: Status) => Status} reduce */
  function listen(name, reduce) {
    source?.addEventListener(name, ({ data }) => {
      clearTimeout(timer);
      timer = setTimeout(lose, SILENCE_MS);
      status = reduce(JSON.parse(data), /** @type {Status} */ (status));
      onChange(status);
    });
  }
  async function lose() {
    close();
    const text = await explain();
    // The page may have been hidden or shown in the meantime.
    if (source !== undefined || document.hidden) return;
    onLost(text);
    timer = setTimeout(open, RETRY_MS);
  }

  document.addEventListener("visibilitychange", () => document.hidden ? close() : open());
  open();
}

/** The reason for a lost connection, which EventSource does not provide. */
async function explain() {
  const options = { method: "HEAD", signal: AbortSignal.timeout(RETRY_MS) };
  const response = await fetch(ADDRESS, options).catch(() => undefined);
  return response?.status === 503
    ? "Too many viewers are connected to the logger. Retrying …"
    : "No connection to the logger. Retrying …";
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
