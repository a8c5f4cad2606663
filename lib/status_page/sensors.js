/** The table of sensors: sorted, filtered, and no more of it than fits on a page. */
import { count, duration, value } from "./words.js";

/** @typedef {import("../status.ts").SensorStatus} SensorStatus */
/** @typedef {{ sensor: SensorStatus, name: string, ageMs: number, state: string }} Row */

/** Rows at a time, so that thousands of sensors do not slow the page down. */
const PAGE_ROWS = 100;

/** As in `lib/status.ts`. */
const STALE_INTERVALS = 5;

const body = /** @type {HTMLElement} */ (document.getElementById("sensors"));
const filter = /** @type {HTMLInputElement} */ (document.getElementById("filter"));
const pages = /** @type {HTMLElement} */ (document.getElementById("pages"));
const previous = /** @type {HTMLButtonElement} */ (document.getElementById("previous"));
const next = /** @type {HTMLButtonElement} */ (document.getElementById("next"));
const headers = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("th[data-key]"));

/** @type {Record<string, (row: Row) => string | number>} */
const KEYS = {
  name: ({ name }) => name.toLowerCase(),
  value: ({ sensor }) => Number(sensor.value),
  age: ({ ageMs }) => ageMs,
  interval: ({ sensor }) => sensor.intervalMs ?? Infinity,
  state: ({ state }) => state,
};

let key = "name";
let direction = 1;
let page = 0;
/** @type {{ sensors: readonly SensorStatus[], nowMs: number, leftOut: number }} */
let shown = { sensors: [], nowMs: 0, leftOut: 0 };

/** Shows the sensors as they are at a time of the logger's clock. */
export function updateSensors(/** @type {typeof shown} */ update) {
  shown = update;
  render();
}

function render() {
  const { sensors, nowMs, leftOut } = shown;
  const rows = sensors.map((sensor) => toRow(sensor, nowMs));
  const words = filter.value.toLowerCase().split(/\s+/).filter((word) => word !== "");
  const found = rows.filter(({ sensor, name, state }) => {
    const text = `${name} ${sensor.uuid} ${sensor.sid} ${sensor.unit} ${state}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const keyOf = /** @type {(row: Row) => string | number} */ (KEYS[key]);
  found.sort((a, b) => direction * compare(keyOf(a), keyOf(b)) || compare(a.name, b.name));
  const pageCount = Math.max(1, Math.ceil(found.length / PAGE_ROWS));
  page = Math.min(page, pageCount - 1);
  const visible = found.slice(page * PAGE_ROWS, (page + 1) * PAGE_ROWS);
  while (body.children.length > visible.length) body.lastElementChild?.remove();
  while (body.children.length < visible.length) body.append(createRow());
  visible.forEach((row, index) => fillRow(/** @type {Element} */ (body.children[index]), row));
  describe({ all: rows, found: found.length, leftOut });
  pages.hidden = pageCount === 1;
  previous.disabled = page === 0;
  next.disabled = page === pageCount - 1;
  setText(document.getElementById("page-number"), `Page ${page + 1} of ${pageCount}`);
}

/** @returns {Row} */
function toRow(/** @type {SensorStatus} */ sensor, /** @type {number} */ nowMs) {
  const ageMs = Math.max(0, nowMs - sensor.timeMs);
  const isStale = sensor.intervalMs !== null && ageMs > STALE_INTERVALS * sensor.intervalMs;
  const state = sensor.state === "unknown"
    ? "not registered"
    : sensor.state === "disabled"
    ? "not enabled"
    : isStale
    ? "stale"
    : "stored";
  const sid = sensor.sid === 0 ? "" : ` / ${sensor.sid}`;
  return { sensor, name: sensor.label ?? `${sensor.uuid.slice(0, 8)}…${sid}`, ageMs, state };
}

/** @returns {number} */
function compare(/** @type {string | number} */ a, /** @type {string | number} */ b) {
  if (typeof a === "string" || typeof b === "string") {
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }
  // NaN comes last.
  if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
  return a === b ? 0 : a < b ? -1 : 1;
}

/** @param {{ all: Row[], found: number, leftOut: number }} counts */
function describe({ all, found, leftOut }) {
  const stale = all.filter(({ state }) => state === "stale").length;
  const text = [
    found === all.length ? count(all.length) : `${count(found)} of ${count(all.length)}`,
    stale > 0 ? `${count(stale)} stale` : "",
    leftOut > 0 ? `${count(leftOut)} more are not listed` : "",
  ].filter((part) => part !== "").join(", ");
  setText(document.getElementById("sensor-counts"), all.length === 0 ? "" : text);
  const none = /** @type {HTMLElement} */ (document.getElementById("no-sensors"));
  none.hidden = found > 0;
  setText(
    none,
    all.length === 0
      ? "No reading has reached the database since the logger was started."
      : "No sensor matches the filter.",
  );
}

function createRow() {
  const row = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  const cells = ["number", "number", "number wide", "recent", "state"].map((className) => {
    const cell = document.createElement("td");
    cell.className = className;
    return cell;
  });
  const plot = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  plot.setAttribute("class", "spark");
  plot.setAttribute("viewBox", "0 0 140 26");
  plot.setAttribute("preserveAspectRatio", "none");
  plot.setAttribute("aria-hidden", "true");
  plot.append(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
  cells[3]?.append(plot);
  row.append(name, ...cells);
  return row;
}

function fillRow(
  /** @type {Element} */ element,
  /** @type {Row} */ { sensor, name, ageMs, state },
) {
  const [title, number, age, interval, recent, mark] = element.children;
  setText(title, name);
  setAttribute(title, "title", `${sensor.uuid} sid ${sensor.sid}`);
  setText(number, `${value(sensor.value)} ${sensor.unit}`);
  setText(age, duration(ageMs));
  setText(interval, sensor.intervalMs === null ? "–" : duration(sensor.intervalMs));
  setAttribute(recent?.querySelector("polyline"), "points", points(sensor.recent));
  setText(mark, state);
  const level = state === "stored" ? "good" : state === "stale" ? "warn" : "bad";
  setAttribute(mark, "class", `state ${level}`);
  setAttribute(element, "class", state === "stale" ? "stale" : "");
}

/** The values as the points of a line in 140 × 26 units. */
function points(/** @type {readonly (number | null)[]} */ recent) {
  const values = recent.filter((number) => number !== null);
  const min = Math.min(...values);
  const span = Math.max(...values) - min;
  const step = 140 / Math.max(1, values.length - 1);
  return values.map((number, index) => {
    const height = span === 0 ? 0.5 : (number - min) / span;
    return `${(index * step).toFixed(1)},${(24 - 22 * height).toFixed(1)}`;
  }).join(" ");
}

function setText(/** @type {Element | null | undefined} */ element, /** @type {string} */ text) {
  if (element && element.textContent !== text) element.textContent = text;
}

function setAttribute(
  /** @type {Element | null | undefined} */ element,
  /** @type {string} */ name,
  /** @type {string} */ text,
) {
  if (element && element.getAttribute(name) !== text) element.setAttribute(name, text);
}

function showOrder() {
  for (const header of headers) {
    const order = direction === 1 ? "ascending" : "descending";
    if (header.dataset["key"] === key) header.setAttribute("aria-sort", order);
    else header.removeAttribute("aria-sort");
  }
}

for (const header of headers) {
  header.querySelector("button")?.addEventListener("click", () => {
    const chosen = header.dataset["key"] ?? key;
    direction = chosen === key ? -direction : 1;
    key = chosen;
    page = 0;
    showOrder();
    render();
  });
}
filter.addEventListener("input", () => {
  page = 0;
  render();
});
previous.addEventListener("click", () => {
  page--;
  render();
});
next.addEventListener("click", () => {
  page++;
  render();
});
showOrder();
