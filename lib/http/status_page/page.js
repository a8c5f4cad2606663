/** Joins the parts of the page. */
import { resizePlots, setUpPlots, updatePlots } from "./plots.js";
import { updateSensors } from "./sensors.js";
import { follow } from "./state.js";
import { bytes, count, duration, isBehind, messages, verdict } from "./words.js";

/** @typedef {import("../../monitoring/status.ts").Status} Status */
/** @typedef {import("../../common/connection_state.ts").ConnectionStatus} ConnectionStatus */

/** A longer text gets a line of its own. */
const LONG_DETAIL = 160;

/** @type {Status | undefined} */
let latest;
/** @type {number | undefined} */
let frame;

/** Shows it with the next picture: several events may come before. */
function show(/** @type {Status} */ status) {
  latest = status;
  frame ??= requestAnimationFrame(() => {
    frame = undefined;
    if (latest !== undefined) draw(latest);
  });
}

function draw(/** @type {Status} */ status) {
  const { version, startedMs, nowMs, counts, broker, database } = status;
  document.body.classList.remove("lost");
  setText(
    document.getElementById("about"),
    `Version ${version}, running for ${duration(nowMs - startedMs)}. ` +
      `${count(counts.received)} received, ${count(counts.stored)} stored, ` +
      `${count(counts.duplicate)} duplicates.`,
  );
  showConnection("broker", broker, nowMs);
  showConnection("database", database, nowMs);
  showWaiting(status);
  showRefused(status);
  updatePlots(status.history);
  const states = updateSensors({
    sensors: status.sensors,
    nowMs,
    leftOut: status.sensorsLeftOut,
    isFlowing: broker.connected && database.connected && !isBehind(status),
  });
  tell(verdict(status, states));
}

/** @param {{ level: string, text: string, news: string }} verdict */
function tell({ level, text, news }) {
  const element = /** @type {HTMLElement} */ (document.getElementById("verdict"));
  element.className = `verdict ${level}`;
  setText(element, text);
  // What is read out, and the name of the tab, do not count the seconds.
  setText(document.getElementById("news"), news);
  document.title = level === "good" ? "Kraken logger" : `${news} – Kraken logger`;
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

function showWaiting(/** @type {Status} */ status) {
  const { counts, spool, oldestWaitingMs } = status;
  const waiting = counts.spooled + counts.waiting;
  const state = waiting === 0
    ? "Nothing waits"
    : `${messages(waiting)}, the oldest for ${duration(oldestWaitingMs ?? 0)}`;
  const detail = spool === null
    ? "No spool configured: the broker keeps what the logger cannot hold."
    : `Spool: ${messages(spool.messages)}, ${bytes(spool.bytes)} of ${bytes(spool.maxBytes)}` +
      (spool.problem === null ? "" : `. Takes no more: ${spool.problem}`);
  const level = spool !== null && spool.problem !== null
    ? "bad"
    : isBehind(status)
    ? "warn"
    : "good";
  card("spool", { level, state, detail });
}

function showRefused(/** @type {Status} */ { counts, lastRejected, lastUnknown, nowMs }) {
  const { rejected, unknown, disabled, dropped } = counts;
  const parts = [
    `${count(rejected)} rejected`,
    ...(unknown > 0 ? [`${count(unknown)} of unknown sensors`] : []),
    ...(disabled > 0 ? [`${count(disabled)} of disabled sensors`] : []),
    ...(dropped > 0 ? [`${count(dropped)} dropped`] : []),
  ];
  const last = [lastRejected, lastUnknown].filter((refusal) => refusal !== null)
    .sort((a, b) => b.timeMs - a.timeMs)
    .map(({ timeMs, topic, reason }) =>
      `Last ${duration(nowMs - timeMs)} ago on '${topic}': ${reason}`
    );
  card("refused", {
    level: rejected + dropped + unknown > 0 ? "warn" : "good",
    state: parts.join(", "),
    detail: last.join("\n"),
  });
}

/** @param {string} id @param {{ level: string, state: string, detail: string }} content */
function card(id, { level, state, detail }) {
  const element = /** @type {HTMLElement} */ (document.getElementById(id));
  const line = /** @type {HTMLElement} */ (element.querySelector(".state"));
  line.className = `state ${level}`;
  setText(line, state);
  setText(element.querySelector(".detail"), detail);
  element.className = detail.length > LONG_DETAIL ? "long" : "";
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
  onLost: (text) => {
    if (frame !== undefined) cancelAnimationFrame(frame);
    frame = undefined;
    document.body.classList.add("lost");
    tell({ level: "bad", text, news: text });
  },
});
