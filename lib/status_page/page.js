/** Joins the parts of the page. */
import { resizePlots, setUpPlots, updatePlots } from "./plots.js";
import { updateSensors } from "./sensors.js";
import { follow } from "./state.js";
import { bytes, count, duration, messages, verdict } from "./words.js";

/** @typedef {import("../status.ts").Status} Status */
/** @typedef {import("../status.ts").ConnectionStatus} ConnectionStatus */

/** @type {Status | undefined} */
let latest;

function show(/** @type {Status} */ status) {
  latest = status;
  document.body.classList.remove("lost");
  tell(verdict(status));
  const { version, startedMs, nowMs, counts } = status;
  setText(
    document.getElementById("about"),
    `Version ${version}, running for ${duration(nowMs - startedMs)}. ` +
      `${count(counts.received)} received, ${count(counts.stored)} stored, ` +
      `${count(counts.duplicate)} duplicates.`,
  );
  showConnection("broker", status.broker, nowMs);
  showConnection("database", status.database, nowMs);
  showWaiting(status);
  showRefused(status);
  updatePlots(status.history);
  updateSensors({ sensors: status.sensors, nowMs, leftOut: status.sensorsLeftOut });
}

function tell(/** @type {{ level: string, text: string }} */ { level, text }) {
  const element = /** @type {HTMLElement} */ (document.getElementById("verdict"));
  element.className = `verdict ${level}`;
  setText(element, text);
  document.title = level === "good" ? "Kraken logger" : `${text} – Kraken logger`;
}

/** @param {string} id @param {ConnectionStatus} connection @param {number} nowMs */
function showConnection(id, { connected, text, sinceMs, reconnects }, nowMs) {
  const state = `${connected ? "Connected" : "Not connected"} for ${duration(nowMs - sinceMs)}`;
  const again = reconnects > 0 ? `, ${count(reconnects)}× connected again` : "";
  card(id, {
    level: connected ? "good" : "bad",
    state,
    detail: text.charAt(0).toUpperCase() + text.slice(1) + again,
  });
}

function showWaiting(/** @type {Status} */ { counts, spool, oldestWaitingMs }) {
  const state = counts.spooled + counts.waiting === 0
    ? "Nothing waits"
    : `${messages(counts.spooled + counts.waiting)}, the oldest for ${
      duration(oldestWaitingMs ?? 0)
    }`;
  const detail = spool === null
    ? "No spool configured: the broker keeps what the logger cannot hold."
    : `Spool: ${messages(spool.messages)}, ${bytes(spool.bytes)} of ${bytes(spool.maxBytes)}` +
      (spool.problem === null ? "" : `. Takes no more: ${spool.problem}`);
  const level = spool !== null && spool.problem !== null
    ? "bad"
    : counts.spooled > 0
    ? "warn"
    : "good";
  card("spool", { level, state, detail });
}

function showRefused(/** @type {Status} */ { counts, lastRejected, lastUnknown }) {
  const { rejected, unknown, disabled, dropped } = counts;
  const parts = [
    `${count(rejected)} rejected`,
    `${count(unknown)} of unknown sensors`,
    ...(disabled > 0 ? [`${count(disabled)} of disabled sensors`] : []),
    ...(dropped > 0 ? [`${count(dropped)} dropped`] : []),
  ];
  const last = [lastRejected, lastUnknown].filter((refusal) => refusal !== null)
    .sort((a, b) => b.timeMs - a.timeMs)
    .map(({ topic, reason }) => `${reason} ('${topic}')`);
  card("refused", {
    level: rejected + dropped > 0 ? "warn" : "good",
    state: parts.join(", "),
    detail: last.length === 0 ? "" : `Last: ${last.join("; ")}`,
  });
}

/** @param {string} id @param {{ level: string, state: string, detail: string }} content */
function card(id, { level, state, detail }) {
  const element = /** @type {HTMLElement} */ (document.getElementById(id));
  const line = /** @type {HTMLElement} */ (element.querySelector(".state"));
  line.className = `state ${level}`;
  setText(line, state);
  setText(element.querySelector(".detail"), detail);
}

/** Leaves alone what is the same, so that nothing is read out twice. */
function setText(/** @type {Element | null} */ element, /** @type {string} */ text) {
  if (element && element.textContent !== text) element.textContent = text;
}

setUpPlots();
addEventListener("resize", resizePlots);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  setUpPlots();
  if (latest !== undefined) updatePlots(latest.history);
});
follow({
  onChange: show,
  onLost: () => {
    document.body.classList.add("lost");
    tell({ level: "bad", text: "No connection to the logger. Trying again …" });
  },
});
