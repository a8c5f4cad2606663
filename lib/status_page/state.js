/** What the logger has told: kept up to date by server-sent events. */

/** @typedef {import("../status.ts").Status} Status */
/** @typedef {import("../status.ts").Update} Update */
/** @typedef {import("../status.ts").SensorStatus} SensorStatus */

const MAX_SAMPLES = 15 * 60;
const MAX_RECENT = 60;
const RETRY_MS = 1000;

/** Without any event for so long the connection is taken for broken. */
const SILENCE_MS = 5000;

/**
 * Follows the logger for ever.
 *
 * @param {object} listener
 * @param {(status: Status, isNew: boolean) => void} listener.onChange after every event; `isNew`
 *   where it is the first one of a connection.
 * @param {() => void} listener.onLost when the connection is interrupted
 */
export function follow({ onChange, onLost }) {
  /** @type {Status | undefined} */
  let status;
  const source = new EventSource("/api/events");
  let timer = setTimeout(lose, SILENCE_MS);

  function lose() {
    clearTimeout(timer);
    source.close();
    onLost();
    setTimeout(() => follow({ onChange, onLost }), RETRY_MS);
  }
  function hear() {
    clearTimeout(timer);
    timer = setTimeout(lose, SILENCE_MS);
  }
  source.addEventListener("status", ({ data }) => {
    hear();
    status = /** @type {Status} */ (JSON.parse(data));
    onChange(status, true);
  });
  source.addEventListener("update", ({ data }) => {
    hear();
    if (status === undefined) return;
    status = apply(status, JSON.parse(data));
    onChange(status, false);
  });
  source.addEventListener("error", lose);
}

/**
 * @param {Status} status
 * @param {Update} update
 * @returns {Status}
 */
function apply(status, { sample, changes, sensors: added, ...summary }) {
  const sensors = /** @type {SensorStatus[]} */ (status.sensors);
  for (const { index, ...sensor } of added) sensors[index] = sensor;
  for (const [index, state, value, timeMs, seenMs, intervalMs] of changes) {
    const sensor = sensors[index];
    if (sensor === undefined) continue;
    const number = Number(value);
    const recent = [...sensor.recent, Number.isFinite(number) ? number : null];
    sensors[index] = {
      ...sensor,
      ...{ state, value, timeMs, seenMs, intervalMs },
      recent: recent.slice(-MAX_RECENT),
    };
  }
  const history = [...status.history, sample].slice(-MAX_SAMPLES);
  return { ...status, ...summary, history, sensors };
}
