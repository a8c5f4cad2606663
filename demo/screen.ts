/**
 * What the demonstration shows: on a terminal a page that is drawn anew every second, elsewhere a
 * line a second without control sequences.
 */

import type { Statistics } from "../lib/pipeline/statistics.ts";

/** A sensor as the database knows it; null before its first reading. */
export interface SensorView {
  readonly label: string;
  readonly value: string | null;
  readonly unit: string;
  readonly ageSeconds: number | null;
  readonly rows: number;
}

/** All that is shown at a time. */
export interface View {
  readonly elapsedSeconds: number;
  readonly sensors: readonly SensorView[];
  readonly published: number;
  readonly statistics: Statistics;
}

/** Where the demonstration writes to. Whoever created it closes it. */
export interface Screen {
  /** Writes lines that stay; not while the page is shown. */
  print(lines: readonly string[]): void;
  /** Writes lines that are also to be at the top of the page. */
  introduce(lines: readonly string[]): void;
  /** Takes a line of the logger's log, its line feed included. */
  log(line: string): void;
  show(view: View): void;
  /** Leaves the terminal as it was; `print` goes on working. May be called again. */
  close(): void;
}

/** The screen for the standard output as it is; `onGone` is called when nobody reads that. */
export function createScreen(onGone: () => void): Screen {
  const write = createWriter(onGone);
  const isTerminal = Deno.stdout.isTerminal() && Deno.env.get("TERM") !== "dumb";
  return isTerminal ? new Page(write) : new Lines(write);
}

/** The rows in the database. */
export function countRows({ sensors }: View): number {
  return sensors.reduce((sum, { rows }) => sum + rows, 0);
}

/** The table of the sensors, at most 66 characters wide. */
export function formatTable({ sensors }: View): string[] {
  const row = (cells: readonly [string, string, string, string, string]): string => {
    const [label, value, unit, age, rows] = cells;
    return `${label.slice(0, 24).padEnd(24)} ${value.padStart(12)} ${unit.padEnd(6)} ` +
      `${age.padStart(9)} ${rows.padStart(9)}`;
  };
  const age = (seconds: number | null): string =>
    seconds === null ? "–" : `${Math.max(0, seconds).toFixed(1)} s`;
  return [
    row(["Sensor", "Last value", "Unit", "Age", "Rows"]),
    ...sensors.map(({ label, value, unit, ageSeconds, rows }) =>
      row([label, value ?? "–", unit, age(ageSeconds), String(rows)])
    ),
  ];
}

/** What happened to the readings, on their way from the node to the table. */
function formatCounts(view: View): string {
  const { published, statistics: { received, outcomes } } = view;
  return `published ${published} → received ${received} → stored ${outcomes.stored} → ` +
    `rows ${countRows(view)}`;
}

/** What else can become of messages. */
function formatOutcomes({ statistics: { outcomes, waiting } }: View): string {
  const { duplicate, unknown, disabled, rejected } = outcomes;
  return `waiting ${waiting}, duplicate ${duplicate}, unknown sensor ${unknown}, ` +
    `disabled ${disabled}, rejected ${rejected}`;
}

/** One line a second. */
class Lines implements Screen {
  readonly #write: (text: string) => void;

  constructor(write: (text: string) => void) {
    this.#write = write;
  }

  print(lines: readonly string[]): void {
    this.#write(lines.map((line) => `${line}\n`).join(""));
  }

  introduce(lines: readonly string[]): void {
    this.print(["", ...lines, ""]);
  }

  log(line: string): void {
    this.#write(line);
  }

  show(view: View): void {
    this.print([`${String(Math.round(view.elapsedSeconds)).padStart(4)} s  ${formatCounts(view)}`]);
  }

  close(): void {}
}

/** Control sequences (ECMA-48; the private modes are xterm's, and common to all terminals). */
const OPEN = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const CLOSE = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME = "\x1b[H";
const CLEAR_LINE = "\x1b[K";
const CLEAR_BELOW = "\x1b[J";
const BOLD = "\x1b[1m";
const DIM = "\x1b[2m";
const PLAIN = "\x1b[m";

/** Log lines that are remembered; as many of them are shown as there is room for. */
const MAX_LOG_LINES = 100;

/** A page on the terminal's alternate screen, so that what was on the terminal comes back. */
class Page implements Screen {
  readonly #write: (text: string) => void;
  readonly #log: string[] = [];
  #introduction: readonly string[] = [];
  #isOpen = false;

  constructor(write: (text: string) => void) {
    this.#write = write;
  }

  print(lines: readonly string[]): void {
    this.#write(lines.map((line) => `${line}\n`).join(""));
  }

  introduce(lines: readonly string[]): void {
    this.#introduction = lines;
    this.print(["", ...lines, ""]);
  }

  log(line: string): void {
    // The date and the milliseconds need the room that the text has use for.
    this.#log.push(line.trimEnd().replace(/^\S+ (\S+)\.\d+ /, "$1 "));
    if (this.#log.length > MAX_LOG_LINES) this.#log.shift();
  }

  show(view: View): void {
    const { columns, rows } = Deno.consoleSize();
    const [head = "", ...table] = formatTable(view);
    const lines = [
      ...this.#introduction.map((line) => line.slice(0, columns)),
      "",
      `${BOLD}${head.slice(0, columns)}${PLAIN}`,
      ...table.map((line) => line.slice(0, columns)),
      "",
      `Readings: ${formatCounts(view)}`.slice(0, columns),
      `          ${formatOutcomes(view)}`.slice(0, columns),
      "",
      `${BOLD}${"Log of the logger".slice(0, columns)}${PLAIN}`,
    ];
    const room = Math.max(0, rows - lines.length);
    const log = this.#log.flatMap((line) => wrap(line, columns));
    const dimmed = log.slice(Math.max(0, log.length - room)).map((line) => `${DIM}${line}${PLAIN}`);
    const page = [...lines, ...dimmed].slice(0, rows).map((line) => `${line}${CLEAR_LINE}`);
    this.#write(`${this.#isOpen ? "" : OPEN}${HOME}${page.join("\r\n")}${CLEAR_BELOW}`);
    this.#isOpen = true;
  }

  close(): void {
    if (this.#isOpen) this.#write(CLOSE);
    this.#isOpen = false;
  }
}

/** How far the second and further lines of a long text are set in. */
const INDENT = "         ";

/** Breaks a text between words, and within those that are longer than a line. */
function wrap(text: string, columns: number): string[] {
  if (text.length <= columns || columns <= 2 * INDENT.length) return [text];
  const space = text.lastIndexOf(" ", columns);
  const end = space > INDENT.length ? space : columns;
  return [text.slice(0, end), ...wrap(INDENT + text.slice(end).trimStart(), columns)];
}

function createWriter(onGone: () => void): (text: string) => void {
  const encoder = new TextEncoder();
  return (text) => {
    try {
      let bytes = encoder.encode(text);
      while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes));
    } catch {
      // A closed pipe or terminal: there is nobody left to show anything to.
      onGone();
    }
  };
}
