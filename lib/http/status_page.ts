/** The files of the status page, embedded in the program: none is read at run time. */

import html from "./status_page/index.html" with { type: "text" };
import style from "./status_page/style.css" with { type: "text" };
import page from "./status_page/page.js" with { type: "text" };
import state from "./status_page/state.js" with { type: "text" };
import plots from "./status_page/plots.js" with { type: "text" };
import sensors from "./status_page/sensors.js" with { type: "text" };
import words from "./status_page/words.js" with { type: "text" };
import uplot from "uplot/dist/uPlot.iife.min.js" with { type: "text" };
import uplotStyle from "uplot/dist/uPlot.min.css" with { type: "text" };

const HTML = "text/html; charset=utf-8";
const CSS = "text/css; charset=utf-8";
const SCRIPT = "text/javascript; charset=utf-8";

/** Content type and text of each file, by URL path. */
export const STATUS_PAGE: ReadonlyMap<string, { readonly type: string; readonly text: string }> =
  new Map([
    ["/", { type: HTML, text: html }],
    ["/page/style.css", { type: CSS, text: style }],
    ["/page/page.js", { type: SCRIPT, text: page }],
    ["/page/state.js", { type: SCRIPT, text: state }],
    ["/page/plots.js", { type: SCRIPT, text: plots }],
    ["/page/sensors.js", { type: SCRIPT, text: sensors }],
    ["/page/words.js", { type: SCRIPT, text: words }],
    ["/page/uplot.js", { type: SCRIPT, text: uplot }],
    ["/page/uplot.css", { type: CSS, text: uplotStyle }],
  ]);
