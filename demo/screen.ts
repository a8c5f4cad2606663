/**
 * The output of the demo: a page that is drawn again every second on a terminal, and one line a
 * second without control sequences on a dumb terminal, in a file or in a pipe.
 */

import {
  formatCounts,
  layOutPage,
  type PageLine,
  type Size,
  type View,
  wrapText,
} from "./layout.ts";

/** The output of the demo. The creator closes it. */
export interface Screen {
  /** Columns for text that is printed; undefined without a terminal. */
  readonly columns: number | undefined;
  /** Writes lines that stay, broken between words. Must not be called while the page is shown. */
  print(lines: readonly string[]): void;
  /**
   * Writes lines that the page also shows at its top. They are not broken at the width of the
   * terminal, so that the commands in them can be copied.
   */
  introduce(lines: readonly string[]): void;
  /** Accepts a line of the logger's log, including its line feed. */
  log(line: string): void;
  /** Shows the current state. */
  show(view: View): void;
  /** Restores the terminal; `print` works afterwards. May be called more than once. */
  close(): void;
}

/** Where a screen writes, and what it writes to. */
export interface Output {
  readonly write: (text: string) => void;
  /** Size of the terminal at this moment; undefined without a terminal. */
  readonly size: () => Size | undefined;
  /** Whether the terminal cannot move its cursor. */
  readonly isDumb: boolean;
  /** Whether text may be bold or dim. */
  readonly isStyled: boolean;
}

/** Creates the screen that suits an output. */
export function createScreen(output: Output): Screen {
  return output.isDumb || output.size() === undefined ? new Lines(output) : new Page(output);
}

/** Describes the standard output; `onGone` is called when nobody reads it any more. */
export function standardOutput(onGone: () => void): Output {
  const isTerminal = Deno.stdout.isTerminal();
  const terminal = Deno.env.get("TERM") ?? "";
  const isUnknown = terminal === "" && Deno.build.os !== "windows";
  return {
    write: createWriter(onGone),
    size: () => isTerminal ? readSize() : undefined,
    isDumb: terminal === "dumb" || isUnknown,
    isStyled: !Deno.noColor,
  };
}

const DEFAULT_SIZE: Size = { columns: 80, rows: 24 };

function readSize(): Size {
  try {
    const { columns, rows } = Deno.consoleSize();
    // Serial lines and some containers report zero.
    return columns > 0 && rows > 0 ? { columns, rows } : DEFAULT_SIZE;
  } catch {
    // The terminal has gone; the signal that ends the demo is under way.
    return DEFAULT_SIZE;
  }
}

function createWriter(onGone: () => void): (text: string) => void {
  const encoder = new TextEncoder();
  return (text) => {
    try {
      let bytes = encoder.encode(text);
      while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes));
    } catch {
      // The pipe or the terminal is closed: no reader is left, so nothing is missing.
      onGone();
    }
  };
}

/** Writes one line a second. */
class Lines implements Screen {
  readonly #output: Output;

  constructor(output: Output) {
    this.#output = output;
  }

  get columns(): number | undefined {
    return this.#output.size()?.columns;
  }

  print(lines: readonly string[]): void {
    this.#output.write(toText(fit(lines, this.columns)));
  }

  introduce(lines: readonly string[]): void {
    this.#output.write(toText(["", ...lines, ""]));
  }

  log(line: string): void {
    this.#output.write(line);
  }

  show(view: View): void {
    const seconds = String(Math.round(view.elapsedSeconds)).padStart(4);
    this.print([`${seconds} s  ${formatCounts(view)}`]);
  }

  close(): void {}
}

/** Control sequences (ECMA-48; the private modes are those of xterm, which other terminals share). */
const OPEN = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const CLOSE = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME = "\x1b[H";
const CLEAR_LINE = "\x1b[K";
const CLEAR_BELOW = "\x1b[J";
const STYLES = { bold: "\x1b[1m", dim: "\x1b[2m" } as const;
const PLAIN = "\x1b[m";

/** Number of log lines that are kept; the page shows as many as it has room for. */
const MAX_LOG_LINES = 100;

/** Draws a page on the alternate screen of the terminal; closing it brings back the normal one. */
class Page implements Screen {
  readonly #output: Output;
  readonly #log: string[] = [];
  #introduction: readonly string[] = [];
  #isOpen = false;

  constructor(output: Output) {
    this.#output = output;
  }

  get columns(): number | undefined {
    return this.#output.size()?.columns;
  }

  print(lines: readonly string[]): void {
    this.#output.write(toText(fit(lines, this.columns)));
  }

  introduce(lines: readonly string[]): void {
    this.#introduction = lines;
    this.#output.write(toText(["", ...lines, ""]));
  }

  log(line: string): void {
    // Without the date and the milliseconds: the text needs the room.
    this.#log.push(line.trimEnd().replace(/^\S+ (\S+)\.\d+ /, "$1 "));
    if (this.#log.length > MAX_LOG_LINES) this.#log.shift();
  }

  show(view: View): void {
    const size = this.#output.size() ?? DEFAULT_SIZE;
    const content = { introduction: this.#introduction, view, log: this.#log };
    const lines = layOutPage(content, size).map((line) => CLEAR_LINE + this.#style(line));
    // After a full line the cursor is still on its last column, so clearing comes before writing.
    const below = lines.length < size.rows ? `\r\n${CLEAR_BELOW}` : "";
    this.#output.write(`${this.#isOpen ? "" : OPEN}${HOME}${lines.join("\r\n")}${below}`);
    this.#isOpen = true;
  }

  close(): void {
    if (this.#isOpen) this.#output.write(CLOSE);
    this.#isOpen = false;
  }

  #style({ text, style }: PageLine): string {
    return style === undefined || !this.#output.isStyled ? text : STYLES[style] + text + PLAIN;
  }
}

const INDENT = " ".repeat(8);

function fit(lines: readonly string[], columns: number | undefined): readonly string[] {
  return columns === undefined ? lines : lines.flatMap((line) => wrapText(line, columns, INDENT));
}

function toText(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join("");
}
