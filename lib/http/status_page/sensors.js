/** The table of sensors: sorted, filtered, and split into pages. */
import { count, duration, value } from "./words.js";

/** @typedef {import("../../monitoring/status.ts").SensorStatus} SensorStatus */
/** @typedef {{ sensor: SensorStatus, name: string, ageMs: number, state: State }} Row */
/** @typedef {keyof typeof STATES} State */

/** Rows per page, so that thousands of sensors do not slow the browser down. */
const PAGE_ROWS = 100;

/** A sensor is stale if its last reading is older than this many usual intervals. */
const STALE_INTERVALS = 5;

/** The text and the level of each state. */
const STATES = {
  stored: { word: "stored", level: "good" },
  stale: { word: "stale", level: "warn" },
  silent: { word: "silent since the start", level: "quiet" },
  disabled: { word: "not enabled", level: "quiet" },
  unknown: { word: "not registered", level: "bad" },
};

/** Created once, because that takes longer than comparing thousands of names. */
const collator = new Intl.Collator("en", { numeric: true });

const body = /** @type {HTMLElement} */ (document.getElementById("sensors"));
const filter = /** @type {HTMLInputElement} */ (document.getElementById("filter"));
const pages = /** @type {HTMLElement} */ (document.getElementById("pages"));
const previous = /** @type {HTMLButtonElement} */ (document.getElementById("previous"));
const next = /** @type {HTMLButtonElement} */ (document.getElementById("next"));
const headers = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("th[data-key]"));

/** @type {Record<string, (row: Row) => string | number>} */
const KEYS = {
  name: ({ name }) => name,
  value: ({ sensor }) => sensor.value === "" ? NaN : Number(sensor.value),
  age: ({ ageMs }) => ageMs,
  interval: ({ sensor }) => sensor.intervalMs ?? Infinity,
  state: ({ state }) => STATES[state].word,
};

let key = "name";
let direction = 1;
let page = 0;
/** @type {{ sensors: readonly SensorStatus[], nowMs: number, leftOut: number, isFlowing: boolean }} */
let shown = { sensors: [], nowMs: 0, leftOut: 0, isFlowing: false };

/**
 * Shows the sensors as of `nowMs`, a time of the clock of the logger. While readings do not flow, no
 * sensor counts as stale. Returns the number of sensors in each state.
 */
export function updateSensors(/** @type {typeof shown} */ update) {
  shown = update;
  return render();
}

function render() {
  const rows = shown.sensors.map(toRow);
  const states = { stored: 0, stale: 0, silent: 0, disabled: 0, unknown: 0 };
  for (const { state } of rows) states[state]++;
  const words = filter.value.toLowerCase().split(/\s+/).filter((word) => word !== "");
  const found = words.length === 0 ? rows : rows.filter((row) => isFound(row, words));
  const keyOf = /** @type {(row: Row) => string | number} */ (KEYS[key]);
  found.sort((a, b) => direction * compare(keyOf(a), keyOf(b)) || compare(a.name, b.name));
  const pageCount = Math.max(1, Math.ceil(found.length / PAGE_ROWS));
  page = Math.min(page, pageCount - 1);
  const visible = found.slice(page * PAGE_ROWS, (page + 1) * PAGE_ROWS);
  while (body.children.length > visible.length) body.lastElementChild?.remove();
  while (body.children.length < visible.length) body.append(createRow());
  visible.forEach((row, index) => fillRow(/** @type {Element} */ (body.children[index]), row));
  describe({ all: rows.length, found: found.length, states });
  pages.hidden = pageCount === 1;
  previous.disabled = page === 0;
  next.disabled = page === pageCount - 1;
  setText(document.getElementById("page-number"), `Page ${page + 1} of ${pageCount}`);
  return states;
}

/** @returns {Row} */
function toRow(/** @type {SensorStatus} */ sensor) {
  const { nowMs, isFlowing } = shown;
  const { label, timeMs, seenMs, intervalMs, state } = sensor;
  // A sensor clock that is ahead must not hide that its last message is old.
  const lastMs = timeMs === null || seenMs === null ? -Infinity : Math.min(timeMs, seenMs);
  const ageMs = Math.max(0, nowMs - lastMs);
  const isStale = state === "stored" && isFlowing && intervalMs !== null &&
    ageMs > STALE_INTERVALS * intervalMs;
  const name = label ?? describeId(sensor);
  return { sensor, name, ageMs, state: isStale ? "stale" : state };
}

/** The format of the log, with a no-break space before the number. */
function describeId(/** @type {SensorStatus} */ { uuid, sid }) {
  return `${uuid} sid\u00a0${sid}`;
}

/** @param {Row} row @param {readonly string[]} words */
function isFound({ sensor, name, state }, words) {
  const { uuid, sid, unit } = sensor;
  const text = `${name} ${uuid} ${sid} ${unit} ${STATES[state].word}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

/** @returns {number} */
function compare(/** @type {string | number} */ a, /** @type {string | number} */ b) {
  if (typeof a === "string" || typeof b === "string") {
    return collator.compare(String(a), String(b));
  }
  // NaN sorts last.
  if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
  return a === b ? 0 : a < b ? -1 : 1;
}

/** @param {{ all: number, found: number, states: Record<State, number> }} counts */
function describe({ all, found, states }) {
  const { leftOut } = shown;
  const parts = [found === all ? count(all) : `${count(found)} of ${count(all)}`];
  for (const state of /** @type {const} */ (["stale", "unknown", "disabled", "silent"])) {
    if (states[state] > 0) parts.push(`${count(states[state])} ${STATES[state].word}`);
  }
  if (leftOut > 0) parts.push(`${count(leftOut)} more not listed`);
  setText(document.getElementById("sensor-counts"), all === 0 ? "" : parts.join(", "));
  const none = /** @type {HTMLElement} */ (document.getElementById("no-sensors"));
  none.hidden = found > 0;
  setText(
    none,
    all === 0
      ? "No reading has reached the database since the logger started."
      : "No sensor matches the filter.",
  );
}

function createRow() {
  const row = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  name.append(...["name", "narrow", "id"].map((className) => create("span", className)));
  const [value, age, interval, recent, state] = [
    ...["number value", "number age", "number wide", "wide recent", "wide word"],
  ].map((className) => create("td", className));
  value?.append(create("span", "digits"), " ", create("span", "unit"));
  const plot = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  plot.setAttribute("class", "spark");
  plot.setAttribute("viewBox", "0 0 140 26");
  plot.setAttribute("preserveAspectRatio", "none");
  plot.setAttribute("aria-hidden", "true");
  plot.append(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
  recent?.append(plot);
  for (const cell of [name, value, age, interval, recent, state]) if (cell) row.append(cell);
  return row;
}

function create(/** @type {string} */ tag, /** @type {string} */ className) {
  const element = document.createElement(tag);
  element.className = className;
  return element;
}

function fillRow(
  /** @type {Element} */ element,
  /** @type {Row} */ { sensor, name, ageMs, state },
) {
  const { label, unit, intervalMs, recent } = sensor;
  const { word, level } = STATES[state];
  const fill = (/** @type {string} */ selector, /** @type {string} */ text) =>
    setText(element.querySelector(selector), text);
  fill(".name", name);
  // The narrow layout has no column of states, so the name is followed by a state other than stored.
  fill(".narrow", state === "stored" ? "" : label === null ? word : `${word}, `);
  fill(".id", label === null ? "" : describeId(sensor));
  fill(".digits", sensor.value === "" ? "–" : value(sensor.value));
  fill(".unit", unit);
  fill(".age", Number.isFinite(ageMs) ? duration(ageMs) : "–");
  fill(".number.wide", intervalMs === null ? "–" : duration(intervalMs));
  setAttribute(element.querySelector("polyline"), "points", points(recent));
  fill(".word", word);
  setAttribute(element, "class", level);
}

/** The points of a polyline of the values, in a view box of 140 × 26. */
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
