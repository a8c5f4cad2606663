/** The demo on narrow and dumb terminals. */
import { createSensors } from "../../demo/sensors.ts";
import assert from "node:assert/strict";
import { FakeTerminal } from "../fakes/fake_terminal.ts";
import { demoArgs } from "../support/demo.ts";
import { type ProgramResult, runProgram } from "../support/process.ts";
import { lacks, requireProgram } from "../support/programs.ts";

/** Runs the demo for some seconds on a terminal and returns all that it has written. */
async function runOnTerminal(
  { columns, rows }: { readonly columns: number; readonly rows: number },
  env: Readonly<Record<string, string>>,
): Promise<ProgramResult> {
  const demo = [Deno.execPath(), ...demoArgs("--seconds", "4")].join(" ");
  const command = `stty cols ${columns} rows ${rows} && exec ${demo}`;
  const args = ["--quiet", "--return", "--flush", "--command", command, "/dev/null"];
  return await runProgram(requireProgram("script"), { args, env });
}

const CLOSE = "\x1b[?1049l";

Deno.test({
  name: "demo shows all sensors on a terminal of 40 by 24, and restores it at the end",
  ignore: lacks("script"),
}, async () => {
  const size = { columns: 40, rows: 24 };
  const { code, stdout } = await runOnTerminal(size, { TERM: "xterm" });
  assert.equal(code, 0, stdout);
  const terminal = new FakeTerminal(size);
  const end = stdout.indexOf(CLOSE);
  terminal.write(stdout.slice(0, end));
  assert.ok(terminal.isAlternate, stdout);
  const screen = terminal.lines.join("\n");
  for (const { label } of createSensors()) {
    assert.ok(screen.includes(`\n${label.slice(0, 15)}`), `${label}:\n${screen}`);
  }
  assert.match(screen, /^Status page {2}http:/m);
  terminal.write(stdout.slice(end));
  assert.ok(!terminal.isAlternate);
  assert.match(stdout.slice(end), /readings published.*exactly\s+once\.\r\n$/s);
  assert.ok(!stdout.slice(end + CLOSE.length).includes("\x1b"));
});

Deno.test({
  name: "demo writes lines without control sequences to a dumb terminal, and none is too wide",
  ignore: lacks("script"),
}, async () => {
  const { code, stdout } = await runOnTerminal({ columns: 40, rows: 24 }, { TERM: "dumb" });
  assert.equal(code, 0, stdout);
  assert.ok(!stdout.includes("\x1b"), stdout);
  assert.match(stdout, /^ +\d+ s {2}published \d+ → received \d+ →\r\n/m);
  const end = stdout.slice(stdout.indexOf("Ending:")).split("\r\n");
  assert.ok(end.length > 10, stdout);
  for (const line of end) assert.ok(line.length <= 40, line);
});
