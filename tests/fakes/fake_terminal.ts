/**
 * A terminal that executes the control sequences of the demo's page, so that tests can compare what
 * is on the screen. Like xterm without automatic wrapping, it keeps the cursor on the last column
 * after a full line, so that clearing the rest of the line erases the last character.
 *
 * @throws {Error} for a sequence that it does not know.
 */
export class FakeTerminal {
  readonly #columns: number;
  readonly #rows: number;
  #cells: string[][];
  #row = 0;
  #column = 0;
  #isAlternate = false;

  constructor({ columns, rows }: { readonly columns: number; readonly rows: number }) {
    this.#columns = columns;
    this.#rows = rows;
    this.#cells = Array.from({ length: rows }, () => []);
  }

  /** Whether the alternate screen is shown. */
  get isAlternate(): boolean {
    return this.#isAlternate;
  }

  /** The lines on the screen, without trailing spaces. */
  get lines(): string[] {
    return this.#cells.map((row) => Array.from(row, (cell) => cell ?? " ").join("").trimEnd());
  }

  write(text: string): void {
    // deno-lint-ignore no-control-regex
    for (const [token] of text.matchAll(/\x1b\[\??[\d;]*[A-Za-z]|[^]/gu)) this.#execute(token);
  }

  #execute(token: string): void {
    switch (token) {
      case "\x1b[?1049h":
      case "\x1b[?1049l":
        this.#isAlternate = token.endsWith("h");
        this.#cells = Array.from({ length: this.#rows }, () => []);
        return;
      case "\x1b[H":
        this.#row = 0;
        this.#column = 0;
        return;
      case "\x1b[K":
        this.#cells[this.#row]?.splice(this.#column);
        return;
      case "\x1b[J":
        this.#cells[this.#row]?.splice(this.#column);
        this.#cells.slice(this.#row + 1).forEach((row) => row.splice(0));
        return;
      case "\r":
        this.#column = 0;
        return;
      case "\n":
        this.#row++;
        if (this.#row === this.#rows) {
          this.#cells = [...this.#cells.slice(1), []];
          this.#row--;
        }
        return;
      case "\x1b[?25h":
      case "\x1b[?25l":
      case "\x1b[?7h":
      case "\x1b[?7l":
      case "\x1b[1m":
      case "\x1b[2m":
      case "\x1b[m":
        return;
      default:
        if (token.startsWith("\x1b")) {
          throw new Error(`Executing '${JSON.stringify(token)}': unknown control sequence`);
        }
        (this.#cells[this.#row] ??= [])[this.#column] = token;
        this.#column = Math.min(this.#column + 1, this.#columns - 1);
    }
  }
}
