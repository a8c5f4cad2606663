/** Connects the parts of the page. */
import { resizePlots, setUpPlots, updatePlots } from "./plots.js";
import { updateSensors } from "./sensors.js";
import { follow } from "./state.js";
import { bytes, count, duration, isBehind, messages, verdict } from "./words.js";

/** @typedef {import("../../monitoring/status.ts").Status} Status */
/** @typedef {import("../../common/connection_state.ts").ConnectionStatus} ConnectionStatus */

/** A card with a longer text takes the full width. */
const LONG_DETAIL = 160;

/** @type {Status | undefined} */
let latest;
/** @type {number | undefined} */
let frame;

/** Draws the status in the next animation frame; several events may arrive before it. */
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
  showVerdict(verdict(status, states));
}

/** @param {{ level: string, text: string, news: string }} verdict */
function showVerdict({ level, text, news }) {
  const element = /** @type {HTMLElement} */ (document.getElementById("verdict"));
  element.className = `verdict ${level}`;
  setText(element, text);
  // Screen readers and the tab title get the text without durations, which changes rarely.
  setText(document.getElementById("news"), news);
  document.title = level === "good" ? "Kraken logger" : `${news} – Kraken logger`;
}

/** @param {string} id @param {ConnectionStatus} connection @param {number} nowMs */
function showConnection(id, { connected, text, sinceMs, reconnects }, nowMs) {
  const state = `${connected ? "Connected" : "Not connected"} for ${duration(nowMs - sinceMs)}`;
  const again = reconnects > 0 ? `, reconnected ${count(reconnects)}×` : "";
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
    ? "No waiting messages"
    : `${messages(waiting)}, the oldest for ${duration(oldestWaitingMs ?? 0)}`;
  const detail = spool === null
    ? "No spool configured: messages that the logger cannot hold stay with the broker."
    : `Spool: ${messages(spool.messages)}, ${bytes(spool.bytes)} of ${bytes(spool.maxBytes)}` +
      (spool.problem === null ? "" : `. Not accepting messages: ${spool.problem}`);
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
  const last = [
    { kind: "rejected message", refusal: lastRejected },
    { kind: "message of an unknown sensor", refusal: lastUnknown },
  ].flatMap(({ kind, refusal }) => refusal === null ? [] : [{ kind, ...refusal }])
    .sort((a, b) => b.timeMs - a.timeMs)
    .map(({ kind, timeMs, topic, reason }) =>
      `Last ${kind}, ${duration(nowMs - timeMs)} ago on '${topic}': ${reason}`
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

/** Does not touch unchanged text, so that screen readers do not read it twice. */
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
    showVerdict({ level: "bad", text, news: text });
  },
});
