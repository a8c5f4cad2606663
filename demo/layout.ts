/**
 * The text of the demo, fitted to the width and height of a terminal. No function here writes
 * anything; no returned line is wider than the given number of columns.
 *
 * A width counts terminal columns: a label from the database may hold characters of two columns, or
 * of none.
 */

import stringWidth from "string-width";
import type { Statistics } from "../lib/pipeline/statistics.ts";

/** A sensor as the database knows it; null before its first reading. */
export interface SensorView {
  readonly label: string;
  readonly value: string | null;
  readonly unit: string;
  readonly ageSeconds: number | null;
  readonly rows: number;
}

/** Everything that the demo shows at one moment. */
export interface View {
  readonly elapsedSeconds: number;
  readonly sensors: readonly SensorView[];
  readonly published: number;
  readonly statistics: Statistics;
}

/** Size of a terminal in characters. */
export interface Size {
  readonly columns: number;
  readonly rows: number;
}

/** A line of the page, with its style. */
export interface PageLine {
  readonly text: string;
  readonly style?: "bold" | "dim";
}

/** What the page consists of, apart from its view. */
export interface PageContent {
  readonly introduction: readonly string[];
  readonly view: View;
  readonly log: readonly string[];
}

/** Counts the rows in the database. */
export function countRows({ sensors }: View): number {
  return sensors.reduce((sum, { rows }) => sum + rows, 0);
}

/** Replaces control characters, which a terminal would execute. */
function withoutControls(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, "?");
}

const segmenter = new Intl.Segmenter(undefined, { granularity: "grapheme" });

/** Returns as many characters from the beginning of a text as fit into the columns. */
function takeColumns(text: string, columns: number): string {
  let taken = "";
  let width = 0;
  for (const { segment } of segmenter.segment(text)) {
    width += stringWidth(segment);
    if (width > columns) break;
    taken += segment;
  }
  return taken;
}

/** Shortens a text to the columns; the last one then shows that something is missing. */
function shorten(text: string, columns: number): string {
  if (stringWidth(text) <= columns) return text;
  return columns < 1 ? "" : `${takeColumns(text, columns - 1)}…`;
}

/** Breaks a text between words, and inside words that are wider than a line. */
export function wrapText(text: string, columns: number, indent: string): string[] {
  const furtherIndent = columns > 2 * indent.length ? indent : "";
  const lines: string[] = [];
  let line = "";
  for (const word of withoutControls(text).split(/(?<= )(?=[^ ])/)) {
    if (line.trim() !== "" && stringWidth(line + word.trimEnd()) > columns) {
      lines.push(line.trimEnd());
      line = furtherIndent;
    }
    let rest = word;
    while (stringWidth(line + rest.trimEnd()) > columns) {
      const part = takeColumns(rest, columns - stringWidth(line));
      // Not even one character fits: leave it out, so that the loop ends.
      if (part === "") rest = rest.slice(segmenter.segment(rest).containing(0)?.segment.length);
      if (part !== "" || line.trim() !== "") lines.push(line + part);
      rest = rest.slice(part.length);
      line = furtherIndent;
    }
    line += rest;
  }
  return [...lines, line.trimEnd()];
}

/** A column of the table. */
interface Column {
  readonly title: string;
  readonly align: "left" | "right";
  /** Keeps the column from changing its width while its content grows. */
  readonly minWidth: number;
  readonly cell: (sensor: SensorView) => string;
}

const COLUMNS = {
  value: {
    title: "Last value",
    align: "right",
    minWidth: 10,
    cell: ({ value }) => value ?? "–",
  },
  unit: { title: "Unit", align: "left", minWidth: 5, cell: ({ unit }) => unit },
  age: {
    title: "Age",
    align: "right",
    minWidth: 8,
    cell: ({ ageSeconds }) => ageSeconds === null ? "–" : `${Math.max(0, ageSeconds).toFixed(1)} s`,
  },
  rows: { title: "Rows", align: "right", minWidth: 6, cell: ({ rows }) => String(rows) },
} satisfies Record<string, Column>;

/** What a narrower terminal leaves out, one step after the other. */
const COLUMN_SETS: readonly (readonly Column[])[] = [
  [COLUMNS.value, COLUMNS.unit, COLUMNS.age, COLUMNS.rows],
  [COLUMNS.value, COLUMNS.unit, COLUMNS.rows],
  [COLUMNS.value, COLUMNS.unit],
  [COLUMNS.value],
];

const MIN_LABEL_WIDTH = 16;
const MAX_LABEL_WIDTH = 24;

/** Formats the table of the sensors, its head first. */
export function formatTable({ sensors }: View, columns: number): string[] {
  let shown: { readonly column: Column; readonly width: number }[] = [];
  let labelWidth = 0;
  for (const set of COLUMN_SETS) {
    shown = set.map((column) => ({ column, width: widthOf(column, sensors) }));
    labelWidth = columns - shown.reduce((sum, { width }) => sum + 1 + width, 0);
    if (labelWidth >= MIN_LABEL_WIDTH) break;
  }
  labelWidth = Math.max(1, Math.min(labelWidth, MAX_LABEL_WIDTH));
  const formatRow = (label: string, cellOf: (column: Column) => string): string => {
    const cells = shown.map(({ column, width }) => pad(cellOf(column), width, column.align));
    const row = [pad(shorten(withoutControls(label), labelWidth), labelWidth, "left"), ...cells];
    return shorten(row.join(" ").trimEnd(), columns);
  };
  return [
    formatRow("Sensor", ({ title }) => title),
    ...sensors.map((sensor) => formatRow(sensor.label, ({ cell }) => cell(sensor))),
  ];
}

function widthOf({ minWidth, cell }: Column, sensors: readonly SensorView[]): number {
  return Math.max(minWidth, ...sensors.map((sensor) => stringWidth(cell(sensor))));
}

function pad(text: string, width: number, align: "left" | "right"): string {
  const space = " ".repeat(Math.max(0, width - stringWidth(text)));
  return align === "left" ? text + space : space + text;
}

/** Describes the way of the readings from the node to the table. */
export function formatCounts(view: View): string {
  const { published, statistics: { received, outcomes } } = view;
  return `published ${published} → received ${received} → stored ${outcomes.stored} → ` +
    `rows ${countRows(view)}`;
}

/** Describes what else can happen to messages. */
function formatOutcomes({ statistics: { outcomes, waiting } }: View): string {
  const { duplicate, unknown, disabled, rejected } = outcomes;
  return `waiting ${waiting}, duplicate ${duplicate}, unknown sensor ${unknown}, ` +
    `disabled ${disabled}, rejected ${rejected}`;
}

/** Indentation of further lines where a text of the introduction has a label and does not fit. */
const INTRODUCTION_INDENT = " ".repeat(13);
/** The same for the counts and for the log. */
const COUNTS_INDENT = " ".repeat(10);
const LOG_INDENT = " ".repeat(9);

const LOG_TITLE = "Log of the logger";

/**
 * Lays the page out for a terminal. What does not fit is left out: first the log, then the end of
 * the introduction, then the end of the table.
 */
export function layOutPage(
  { introduction, view, log }: PageContent,
  { columns, rows }: Size,
): PageLine[] {
  const wrap = (lines: readonly string[], indent: string): PageLine[] =>
    lines.flatMap((line) => wrapText(line, columns, indent)).map((text) => ({ text }));
  const wrapIntroduction = (line: string): PageLine[] =>
    wrap([line], line.includes("  ") ? INTRODUCTION_INDENT : "");
  const blank: PageLine = { text: "" };
  const [head = "", ...table] = formatTable(view, columns);
  const main: PageLine[] = [
    { text: head, style: "bold" },
    ...table.map((text) => ({ text })),
    blank,
    ...wrap(
      [`Readings: ${formatCounts(view)}`, COUNTS_INDENT + formatOutcomes(view)],
      COUNTS_INDENT,
    ),
  ];
  const roomAbove = Math.max(0, rows - main.length - 1);
  const above = introduction.flatMap(wrapIntroduction).slice(0, roomAbove);
  const page = above.length > 0 ? [...above, blank, ...main] : main;
  const roomBelow = rows - page.length - 2;
  if (roomBelow > 0) {
    const title: PageLine = { text: shorten(LOG_TITLE, columns), style: "bold" };
    const lines = wrap(log, LOG_INDENT).slice(-roomBelow);
    page.push(blank, title, ...lines.map((line): PageLine => ({ ...line, style: "dim" })));
  }
  return page.slice(0, rows);
}
