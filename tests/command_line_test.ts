/** The command line: what may be asked for, and how the rest is refused. */
import assert from "node:assert/strict";
import { type Command, HELP, parseCommandLine, UsageError } from "../lib/command_line.ts";

function parse(line: string): Command {
  return parseCommandLine(line === "" ? [] : line.split(" "), 10_000_000);
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
    ["rejected", { name: "rejected", json: false, retry: false }],
    ["rejected --retry --topic a/#", { name: "rejected", json: false, retry: true, topic: "a/#" }],
    ["rejected --json --since 2h", {
      name: "rejected",
      json: true,
      retry: false,
      sinceMs: 2_800_000,
    }],
    ["unknown", { name: "unknown", json: false, sql: false }],
    ["unknown --json", { name: "unknown", json: true, sql: false }],
    ["unknown --sql", { name: "unknown", json: false, sql: true }],
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
    ["check --json", /--json.*'check'/],
    ["rejected --json --retry", /--retry and --json/],
    ["unknown --json --sql", /--json and --sql/],
    ["rejected --sql", /--sql.*'rejected'/],
    ["rejected --since yesterday", /--since.*'yesterday'/],
    ["rejected --since 2026-13-01", /--since.*'2026-13-01'/],
    ["rejected --since", /'--since/],
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

Deno.test("--since takes dates and times of the host, times of another zone, and ages", () => {
  const since = (text: string): unknown => {
    const command = parseCommandLine(["rejected", "--since", text], 1e12);
    return command.name === "rejected" ? command.sinceMs : undefined;
  };
  assert.equal(since("2026-11-23"), new Date(2026, 10, 23).getTime());
  assert.equal(since("2026-11-23T17:30"), new Date(2026, 10, 23, 17, 30).getTime());
  assert.equal(since("2026-11-23 17:30:05"), new Date(2026, 10, 23, 17, 30, 5).getTime());
  assert.equal(since("2026-11-23T17:30Z"), Date.UTC(2026, 10, 23, 17, 30));
  assert.deepEqual(["90s", "30m", "12h", "7d"].map(since), [
    1e12 - 90_000,
    1e12 - 1_800_000,
    1e12 - 43_200_000,
    1e12 - 604_800_000,
  ]);
});

Deno.test("the help names every command, option and exit status, in lines of 100 characters", () => {
  for (
    const word of [
      ...["run", "check", "schema", "init", "rejected", "unknown"],
      ...["--timescale", "--grant", "--since", "--topic", "--retry", "--json", "--sql", "--help"],
    ]
  ) {
    assert.match(HELP, new RegExp(`^  .*${word}\\b`, "m"));
  }
  assert.match(HELP, /78/);
  assert.ok(HELP.split("\n").every((line) => line.length <= 100));
});
