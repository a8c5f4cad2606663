/** The output of the demo on terminals, dumb terminals and pipes. */
import assert from "node:assert/strict";
import type { Size } from "../../../demo/layout.ts";
import { createScreen, type Screen } from "../../../demo/screen.ts";
import { FakeTerminal } from "../../fakes/fake_terminal.ts";
import { INTRODUCTION, makeView } from "./scene.ts";

interface Options {
  readonly isDumb?: boolean;
  readonly isStyled?: boolean;
}

/** A screen for a terminal of the size, or for a pipe, and what it has written. */
function open(
  size: () => Size | undefined,
  { isDumb = false, isStyled = true }: Options = {},
): { readonly screen: Screen; readonly written: string[] } {
  const written: string[] = [];
  const screen = createScreen({ write: (text) => written.push(text), size, isDumb, isStyled });
  return { screen, written };
}

function showAll(screen: Screen): void {
  screen.print(["Starting …"]);
  screen.introduce(INTRODUCTION);
  screen.log("2026-11-26 17:00:00.123 INFO     Connected.\n");
  screen.show(makeView());
  screen.show(makeView());
  screen.close();
  screen.print(["All readings are stored."]);
}

Deno.test("the demo writes no control sequence into a pipe or to a dumb terminal", () => {
  for (
    const { size, isDumb } of [
      { size: undefined, isDumb: false },
      { size: { columns: 40, rows: 24 }, isDumb: true },
    ]
  ) {
    const { screen, written } = open(() => size, { isDumb });
    showAll(screen);
    const text = written.join("");
    assert.doesNotMatch(text, /[^\P{Cc}\n]/u);
    assert.match(text, /published 11106/);
    assert.match(text, /INFO {5}Connected\.\n/);
    assert.ok(text.endsWith("All readings are stored.\n"), text);
  }
});

Deno.test("the demo's status fits into a narrow dumb terminal, and is one line in a pipe", () => {
  const narrow = open(() => ({ columns: 40, rows: 24 }), { isDumb: true });
  narrow.screen.show(makeView());
  const lines = narrow.written.join("").split("\n");
  assert.ok(lines.every((line) => line.length <= 40), lines.join("\n"));
  assert.match(lines.join(" "), /1235 s {2}published 11106 .* rows 11106/);
  const pipe = open(() => undefined);
  pipe.screen.show(makeView());
  assert.match(pipe.written.join(""), /^1235 s {2}published [^\n]* rows 11106\n$/);
});

Deno.test("the demo's printed commands are not wrapped, so that they can be copied", () => {
  for (const isDumb of [false, true]) {
    const { screen, written } = open(() => ({ columns: 30, rows: 24 }), { isDumb });
    screen.introduce(INTRODUCTION);
    assert.equal(written.join(""), `\n${INTRODUCTION.join("\n")}\n\n`);
  }
});

Deno.test("the demo's page keeps the last character of a line as wide as the terminal", () => {
  const size = { columns: 55, rows: 40 };
  const terminal = new FakeTerminal(size);
  const { screen, written } = open(() => size);
  screen.introduce(["x".repeat(55)]);
  written.length = 0;
  screen.show(makeView());
  screen.show(makeView());
  terminal.write(written.join(""));
  assert.equal(terminal.lines[0], "x".repeat(55));
  assert.ok(terminal.lines.some((line) => line.length === 55 && line.endsWith("Rows")));
});

Deno.test("the demo's page follows the size of the terminal, and erases the former page", () => {
  let size: Size = { columns: 100, rows: 40 };
  const { screen, written } = open(() => size);
  screen.introduce(INTRODUCTION);
  screen.log("2026-11-26 17:00:00.123 INFO     Connected.\n");
  for (const next of [{ columns: 40, rows: 24 }, { columns: 20, rows: 8 }, size]) {
    screen.show(makeView());
    size = next;
    written.length = 0;
    const terminal = new FakeTerminal(size);
    // A terminal may rearrange the former page like this when its size changes.
    terminal.write(`\x1b[?1049h\x1b[H${"~".repeat(size.columns)}`);
    terminal.write(Array.from({ length: size.rows }, () => "~".repeat(size.columns)).join("\r\n"));
    screen.show(makeView());
    terminal.write(written.join(""));
    assert.ok(
      terminal.lines.some((line) => line.startsWith("Laser po")),
      terminal.lines.join("\n"),
    );
    assert.ok(!terminal.lines.join("").includes("~"), terminal.lines.join("\n"));
  }
});

Deno.test("the demo restores the terminal once, and then prints below the former output", () => {
  const size = { columns: 80, rows: 24 };
  const { screen, written } = open(() => size);
  screen.show(makeView());
  const terminal = new FakeTerminal(size);
  terminal.write(written.join(""));
  assert.ok(terminal.isAlternate);
  screen.close();
  screen.close();
  assert.deepEqual(written.slice(1), ["\x1b[?7h\x1b[?25h\x1b[?1049l"]);
});

Deno.test("the demo's page has no bold or dim text if color is disabled", () => {
  for (const isStyled of [true, false]) {
    const { screen, written } = open(() => ({ columns: 80, rows: 24 }), { isStyled });
    screen.show(makeView());
    const styles = ["\x1b[1m", "\x1b[2m", "\x1b[m"];
    assert.equal(styles.some((style) => written.join("").includes(style)), isStyled);
  }
});
