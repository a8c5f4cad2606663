/** The command line: what may be asked for, and how the rest is refused. */
import assert from "node:assert/strict";
import { type Command, HELP, parseCommandLine, UsageError } from "../lib/command_line.ts";

function parse(line: string): Command {
  return parseCommandLine(line === "" ? [] : line.split(" "));
}

Deno.test("every command and option is understood", () => {
  const cases: [string, Command][] = [
    ["", { name: "run" }],
    ["run", { name: "run" }],
    ["check", { name: "check" }],
    ["schema", { name: "schema", timescale: false }],
    ["schema --timescale", { name: "schema", timescale: true }],
    ["--timescale schema", { name: "schema", timescale: true }],
    ["init --grant kraken", { name: "init", timescale: false, grant: "kraken" }],
    ["init --grant=-x --timescale", { name: "init", timescale: true, grant: "-x" }],
    ["--help", { name: "help" }],
    ["-h", { name: "help" }],
    ["check --help", { name: "help" }],
    ["--version", { name: "version" }],
    ["-V", { name: "version" }],
  ];
  for (const [line, command] of cases) assert.deepEqual(parse(line), command, line);
});

Deno.test("what is unknown or does not go together is refused in one line that names it", () => {
  const cases: [string, RegExp][] = [
    ["start", /'start'/],
    ["RUN", /'RUN'/],
    ["run check", /'check'/],
    ["--verbose", /'--verbose'/],
    ["-x", /'-x'/],
    ["check --timescale", /--timescale.*'check'/],
    ["--grant kraken", /--grant.*'run'/],
    ["init --grant", /'--grant/],
    ["init --grant -x", /'--grant'/],
    ["init --timescale=yes", /'--timescale'/],
  ];
  for (const [line, pattern] of cases) {
    assert.throws(() => parse(line), (error) => {
      assert.ok(error instanceof UsageError);
      assert.match(error.message, pattern);
      assert.doesNotMatch(error.message, /\n|\.$/, line);
      return true;
    }, line);
  }
});

Deno.test("the help names every command, option and exit status, in lines of 100 characters", () => {
  for (const word of ["run", "check", "schema", "init", "--timescale", "--grant", "--help"]) {
    assert.match(HELP, new RegExp(`^  .*${word}\\b`, "m"));
  }
  assert.match(HELP, /78/);
  assert.ok(HELP.split("\n").every((line) => line.length <= 100));
});
