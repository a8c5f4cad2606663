/** The command line: what is accepted, and how errors are reported. */
import assert from "node:assert/strict";
import {
  type Command,
  HELP,
  parseCommandLine,
  UsageError,
} from "../../../lib/commands/command_line.ts";

const UUID = "c4ca4238-a0b9-4382-8dcc-509a6f75849b";

function parse(line: string): Command {
  return parseCommandLine(line === "" ? [] : line.split(" "), 10_000_000);
}

Deno.test("every command and option is accepted", () => {
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
    ["rejected --topic $share/g/+/x", {
      name: "rejected",
      json: false,
      retry: false,
      topic: "$share/g/+/x",
    }],
    ["rejected --json --since 2h", {
      name: "rejected",
      json: true,
      retry: false,
      sinceMs: 2_800_000,
    }],
    ["unknown", { name: "unknown", json: false, sql: false }],
    ["unknown --json", { name: "unknown", json: true, sql: false }],
    ["unknown --sql", { name: "unknown", json: false, sql: true }],
    ["report --since 1h --until 30m", {
      ...{ name: "report", sensors: [], perSensor: false, by: "month", binMs: 60_000, maxGaps: 5 },
      ...{ sinceMs: 6_400_000, untilMs: 8_200_000, format: "text", table: "periods" },
    }],
    [`report --sensor ${UUID} --sensor ${UUID}:-5 --sensor ${UUID}:5000000000 --since 1h`, {
      ...{ name: "report", perSensor: false, by: "month", binMs: 60_000, maxGaps: 5 },
      ...{ sinceMs: 6_400_000, untilMs: 10_000_000, format: "text", table: "periods" },
      sensors: [{ uuid: UUID }, { uuid: UUID, sid: -5 }, { uuid: UUID, sid: 5_000_000_000 }],
    }],
    [
      "report --csv --table gaps --gaps 9 --per-sensor --by day --bin 5s --since 1h --until 2027-01-01",
      {
        ...{ name: "report", sensors: [], perSensor: true, by: "day", binMs: 5_000, maxGaps: 9 },
        ...{ sinceMs: 6_400_000, untilMs: 10_000_000, format: "csv", table: "gaps" },
      },
    ],
    ["--help", { name: "help" }],
    ["-h", { name: "help" }],
    ["check --help", { name: "help" }],
    ["--version", { name: "version" }],
    ["-V", { name: "version" }],
  ];
  for (const [line, command] of cases) assert.deepEqual(parse(line), command, line);
});

Deno.test("unknown, misplaced and conflicting arguments are refused in one line that names them", () => {
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
    ["rejected --topic a/+x", /--topic.*'\+' and '#'.*'a\/\+x'/],
    ["rejected --topic a#", /--topic.*'a#'/],
    ["rejected --topic #/a", /--topic.*'#\/a'/],
    ["rejected --topic=", /--topic.*received ''/],
    ["rejected --since 999999999d", /--since.*year 1.*'999999999d'/],
    ["report --since 999999999d", /--since.*year 1.*'999999999d'/],
    ["report --until 0000-12-31", /--until.*year 1.*'0000-12-31'/],
    ["report --since 2025-02-30", /--since.*'2025-02-30'/],
    ["report --since 2025-02-29T10:00Z", /--since.*'2025-02-29T10:00Z'/],
    ["report --since 2025-01-01T25:00", /--since.*'2025-01-01T25:00'/],
    ["report --since 2025-01-01T10:00+25:00", /--since.*'2025-01-01T10:00\+25:00'/],
    ["report --since 2025-01-01T10:00x", /--since.*'2025-01-01T10:00x'/],
    ["report --since 2027-01-01", /--since must be before --until and before now/],
    [
      "report --since 2027-01-01 --until 2028-01-01",
      /--since must be before --until and before now/,
    ],
    ["report --table gaps", /--table.*--csv/],
    ["report --json --table gaps", /--table.*--csv/],
    ["report --csv --table sensors", /--table.*'sensors'/],
    ["report --csv --gaps 3", /--gaps.*--table/],
    [`report --sensor ${UUID}:9007199254740993`, /--sensor.*9007199254740993'/],
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

Deno.test("--since accepts dates and times of the host, times with a time zone, and ages", () => {
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

Deno.test("--since and --until of report are in UTC unless they name another time zone", () => {
  const report = (text: string): unknown => {
    const args = ["report", "--since", text, "--until", text.replace("2026", "2027")];
    const command = parseCommandLine(args, Date.UTC(2028, 0, 1));
    return command.name === "report" ? [command.sinceMs, command.untilMs] : undefined;
  };
  const midnight = [Date.UTC(2026, 10, 23), Date.UTC(2027, 10, 23)];
  for (const text of ["2026-11-23", "2026-11-23T00:00", "2026-11-23 00:00:00.000"]) {
    assert.deepEqual(report(text), midnight, text);
  }
  for (const zone of ["Z", " UTC", "+00:00", "-0000"]) {
    assert.deepEqual(report(`2026-11-23T00:00${zone}`), midnight, zone);
  }
  for (const zone of ["+01:30", "+0130", " +01:30"]) {
    const earlier = midnight.map((ms) => ms - 5_400_000);
    assert.deepEqual(report(`2026-11-23 00:00${zone}`), earlier, zone);
  }
});

Deno.test("the help names every command, option and exit status, in lines of 100 characters", () => {
  for (
    const word of [
      ...["run", "check", "schema", "init", "rejected", "unknown", "report", "--until", "--table"],
      ...["--timescale", "--grant", "--since", "--topic", "--retry", "--json", "--sql", "--help"],
    ]
  ) {
    assert.match(HELP, new RegExp(`^  .*${word}\\b`, "m"));
  }
  assert.match(HELP, /78/);
  const commands = /\nCommands:\n(.*?)\n\n/s.exec(HELP)?.[1]?.split("\n") ?? [];
  assert.equal(commands.length, 8);
  for (const line of commands) assert.equal(/^ {2}[a-z]+ +/.exec(line)?.[0].length, 14, line);
  assert.ok(HELP.split("\n").every((line) => line.length <= 100));
});
