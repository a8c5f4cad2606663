/** The plots of the last 15 minutes. */
import { count, shortDuration } from "./words.js";

/** The library is a separate script, which runs before this one. */
const { uPlot } = /** @type {any} */ (globalThis);

/** @typedef {import("../../monitoring/status.ts").Sample} Sample */

const HEIGHT = 150;
const SPAN_SECONDS = 15 * 60;

/**
 * A plot: the id of its element, the fields of its two lines, and the format of a value on the axis
 * (`mark`) and in the caption (`words`).
 *
 * @typedef {{ id: string, lines: string[], mark: Format, words: Format }} Plot
 * @typedef {(value: number) => string} Format
 */

/** @type {Plot[]} */
const PLOTS = [
  { id: "rates", lines: ["received", "stored"], mark: short, words: count },
  {
    id: "latency",
    lines: ["latencyMs", "latencyMaxMs"],
    mark: shortDuration,
    words: shortDuration,
  },
  { id: "waiting", lines: ["waiting", "spooled"], mark: short, words: count },
];

/**
 * The plots on the page.
 * @type {(Plot & { plot: any, element: HTMLElement })[]}
 */
let drawn = [];

/** Creates the plots: at the start, and again when the colors change. */
export function setUpPlots() {
  for (const { plot } of drawn) plot.destroy();
  const style = getComputedStyle(document.documentElement);
  const color = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  drawn = PLOTS.map((kind) => {
    const { id, lines, mark } = kind;
    const element = /** @type {HTMLElement} */ (document.getElementById(id));
    const axis = {
      stroke: color("--quiet"),
      grid: { stroke: color("--line"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    const series = lines.map((_, index) => ({
      stroke: color(index === 0 ? "--a" : "--b"),
      width: 1.5,
      points: { show: false },
    }));
    const plot = new uPlot(
      {
        width: element.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        padding: [8, 8, 0, 0],
        cursor: { show: false },
        scales: {
          y: {
            range: (
              /** @type {any} */ _,
              /** @type {number} */ _min,
              /** @type {number} */ max,
            ) => [0, nice(max)],
          },
        },
        series: [{}, ...series],
        axes: [
          {
            ...axis,
            space: 70,
            size: 24,
            values: (/** @type {any} */ _, /** @type {number[]} */ marks) => marks.map(clock),
          },
          {
            ...axis,
            size: 54,
            space: 30,
            values: (/** @type {any} */ _, /** @type {number[]} */ marks) => marks.map(mark),
          },
        ],
      },
      [[], [], []],
      element,
    );
    return { ...kind, plot, element };
  });
}

/** The upper end of an axis: a little above the highest value, and never 0. */
function nice(/** @type {number | null} */ max) {
  return max === null || !(max > 0) ? 1 : max * 1.1;
}

/** Formats seconds since 1970 as `14:05`, in the time zone of the browser. */
function clock(/** @type {number} */ seconds) {
  const time = new Date(seconds * 1000);
  const pad = (/** @type {number} */ number) => String(number).padStart(2, "0");
  return `${pad(time.getHours())}:${pad(time.getMinutes())}`;
}

/** Formats 1200 as `1.2k`. */
function short(/** @type {number} */ number) {
  if (number >= 1e9) return `${number / 1e9}G`;
  if (number >= 1e6) return `${number / 1e6}M`;
  return number >= 1e3 ? `${number / 1e3}k` : String(number);
}

/** Draws the lines, and writes their last values into the caption. */
export function updatePlots(/** @type {readonly Sample[]} */ history) {
  const times = history.map(({ timeMs }) => timeMs / 1000);
  const end = times.at(-1) ?? Date.now() / 1000;
  for (const { plot, element, lines, words } of drawn) {
    const values = lines.map((line) => history.map((sample) => /** @type {any} */ (sample)[line]));
    const ends = element.parentElement?.querySelectorAll("figcaption b");
    values.forEach((line, index) => {
      const last = line.at(-1) ?? null;
      const caption = ends?.[index];
      if (caption) caption.textContent = last === null ? "–" : words(last);
    });
    plot.batch(() => {
      plot.setData([times, ...values], false);
      plot.setScale("x", { min: end - SPAN_SECONDS, max: end });
    });
  }
}

/** Fits the plots to the width of their elements. */
export function resizePlots() {
  for (const { plot, element } of drawn) {
    plot.setSize({ width: element.clientWidth, height: HEIGHT });
  }
}
