/**
 * The soak test itself: its command line, its verdict, and a very short run.
 *
 * `KRAKEN_TEST_SEED` repeats the faults of an earlier run.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { TestProcess } from "../support/process.ts";
import { printSeed, readSeed } from "../support/readings.ts";
import { FAULTS, KINDS } from "../soak/faults.ts";
import { findComplaints } from "../soak/logger_keeper.ts";
import { HELP, parseOptions } from "../soak/options.ts";
import { formatSummary, isClean, type Summary } from "../soak/summary.ts";
import { lacks } from "../support/programs.ts";

const SEED = readSeed();

const CLEAN: Summary = {
  title: "0.1 minutes",
  faults: new Map([["logger killed", { times: 3, seconds: 1.25 }]]),
  leftOut: [],
  overlaps: 1,
  published: { readings: 1000, noise: 20, repetitions: 5 },
  loggers: { starts: 4, cleanEnds: 1 },
  sums: { received: 400, duplicates: 7, redelivered: 0, found: 30 },
  outcome: { rows: 1000, lost: 0, storedTwice: 0, wrong: 0, notRecorded: 0, problems: [] },
  problems: [],
};

function startSoak(args: readonly string[]): TestProcess {
  const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));
  const flags = ["--allow-all", "--quiet", "--no-check", "--config", path("../deno.json")];
  return TestProcess.start(Deno.execPath(), {
    args: ["run", ...flags, path("../soak/main.ts"), ...args],
  });
}

/** The number after a text at the start of a line of the summary. */
function numberOf(lines: readonly string[], text: string): number {
  const line = lines.find((candidate) => candidate.startsWith(text));
  assert.ok(line, `no '${text}' in:\n${lines.join("\n")}`);
  return Number(/^ +([\d,]+)/.exec(line.slice(text.length))?.[1]?.replaceAll(",", ""));
}

Deno.test("soak accepts minutes, rate, seed and binary, and reports invalid values", () => {
  const defaults = parseOptions([]);
  assert.deepEqual([defaults?.minutes, defaults?.rate, defaults?.binary], [30, 500, undefined]);
  assert.ok(Number.isInteger(defaults?.seed));
  assert.deepEqual(
    parseOptions(["--minutes", "0.5", "--rate", "50", "--seed=7", "--binary", "/x"]),
    { minutes: 0.5, rate: 50, seed: 7, binary: "/x" },
  );
  assert.equal(parseOptions(["--help", "--minutes", "x"]), null);
  const wrong: readonly (readonly [string[], RegExp])[] = [
    [["--minutes", "x"], /^--minutes: must be a number from 0 to 100000, received 'x'$/],
    [["--minutes="], /^--minutes: .*received ''$/],
    [["--minutes=-1"], /^--minutes: .*received '-1'$/],
    [["--rate", "1.5"], /^--rate: must be a whole number from 10 to 5000, received '1.5'$/],
    [["--rate", "5001"], /^--rate: /],
    [["--seed", "0x100000000"], /^--seed: /],
    [["--hours", "1"], /--hours/],
    [["30"], /30/],
  ];
  for (const [args, message] of wrong) {
    assert.throws(() => parseOptions(args), { name: "TypeError", message }, args.join(" "));
  }
});

Deno.test("soak fails for every reading that is not in the table exactly once", () => {
  assert.ok(isClean(CLEAN));
  assert.match(formatSummary(CLEAN), /\nlogger killed +3 +1\.3\n/);
  assert.match(formatSummary(CLEAN), /\nNo reading was lost or stored twice\.\n$/);
  const { outcome } = CLEAN;
  for (const name of ["lost", "storedTwice", "wrong", "notRecorded"] as const) {
    assert.ok(!isClean({ outcome: { ...outcome, [name]: 1 }, problems: [] }), name);
  }
  assert.ok(!isClean({ outcome: { ...outcome, wrong: -1 }, problems: [] }));
  assert.ok(!isClean({ outcome, problems: ["x"] }));
  const withProblem = { ...CLEAN, outcome: { ...outcome, lost: 1, problems: ["reading x, lost"] } };
  assert.ok(!isClean(withProblem));
  assert.match(formatSummary(withProblem), /\nlost +1\n[^]*\nPROBLEMS\n- reading x, lost\n$/);
});

Deno.test("soak lists its faults, and those that this machine does not support", () => {
  for (const kind of KINDS) assert.ok(HELP.includes(kind), kind);
  assert.deepEqual(HELP.split("\n").filter((line) => line.length > 100), []);
  assert.doesNotMatch(formatSummary(CLEAN), /Left out/);
  const summary = {
    ...CLEAN,
    leftOut: ["clock set (needs libfaketime)", "disk full (needs room)"],
  };
  const sentence = /\nLeft out: clock set \(needs libfaketime\); disk full \(needs room\)\n/;
  assert.match(formatSummary(summary), sentence);
});

Deno.test("soak detects log lines that must not occur under any fault", () => {
  const time = "2026-11-23 17:31:56.480";
  const allowed = [
    `${time} INFO     Found 40 messages of an earlier run in the spool.`,
    `${time} ERROR    The spool is not accepting messages: database or disk is full.`,
    `${time} ERROR    Database 'soak' at '127.0.0.1:5432' is not available: timeout.`,
    `${time} WARNING  Rejected a message on 'sensors/soak/noise': not JSON.`,
  ];
  const complaints = [
    `${time} CRITICAL Cannot use the spool in '/spool': database is locked.`,
    `${time} ERROR    The spool '/spool.sqlite' is damaged (malformed). The damaged file is kept as '/aside'.`,
    `${time} ERROR    Could not read 12 spooled messages from the damaged file.`,
    `${time} ERROR    The counts do not add up: 1 message in memory, but …`,
    `${time} ERROR    Something is wrong. This is a defect of the logger.`,
    `${time} WARNING  Dropped a QoS 0 message on 'sensors/x': no room.`,
  ];
  assert.deepEqual(findComplaints([...allowed, ...complaints]), complaints);
});

Deno.test("soak injects every fault at least once, and loses nothing", {
  ignore: lacks("mosquitto"),
}, async (t) => {
  printSeed(t, SEED);
  const args = ["--minutes", "0.05", "--rate", "300", "--seed", String(SEED)];
  await using process = startSoak(args);
  assert.equal((await process.finished()).code, 0, process.tail(60));
  const lines = process.stdoutLines;
  for (const { kind } of FAULTS) assert.ok(numberOf(lines, `${kind} `) >= 1, kind);
  const published = numberOf(lines, "readings published");
  assert.ok(published > 0);
  assert.equal(numberOf(lines, "stored  "), published);
  assert.deepEqual([numberOf(lines, "lost"), numberOf(lines, "stored twice")], [0, 0]);
});

Deno.test("soak ends early on Ctrl-C, with the comparison", {
  ignore: lacks("mosquitto"),
}, async () => {
  await using process = startSoak(["--minutes", "30", "--rate", "300"]);
  await process.waitForLine("Publishing, and injecting faults");
  process.kill("SIGINT");
  assert.equal((await process.finished()).code, 0, process.tail(60));
  assert.ok(process.lines.some((line) => line.includes("Interrupted: waiting")));
  assert.ok(process.stdoutLines.some((line) => line.startsWith("No reading was lost")));
});
