/** The log: its formats and levels, and that no payload can forge a line. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { fstatSync } from "node:fs";
import { configureLog, isJournal, log } from "../../../lib/common/log.ts";
import { captureLog, withoutTime } from "../../support/captured_log.ts";

const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] as const;

/** Any code unit, control characters more often. */
const codeUnit = fc.oneof(fc.nat({ max: 0xa0 }), fc.nat({ max: 0xffff }))
  .map((code) => String.fromCharCode(code));

function logAll(): void {
  log.debug("d");
  log.info("i");
  log.warning("w");
  log.error("e");
  log.critical("c");
}

Deno.test("a text line is time, level and sentence in fixed columns", () => {
  const lines = captureLog();
  const before = Date.now();
  logAll();
  assert.deepEqual(lines.map(withoutTime), [
    "DEBUG    d",
    "INFO     i",
    "WARNING  w",
    "ERROR    e",
    "CRITICAL c",
  ]);
  const [day, clock] = (lines[0] ?? "").split(" ");
  assert.match(`${day} ${clock}`, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$/);
  // Without an offset a date and time stand for local time (ECMA-262 section 21.4.1.32).
  const written = Date.parse(`${day}T${clock}`);
  assert.ok(written >= before && written <= Date.now(), "in the time zone of the host");
  assert.ok(lines.every((line) => line.endsWith("\n")));
});

Deno.test("a JSON line is an object with time, level and message", () => {
  const lines = captureLog({ format: "json" });
  const before = Date.now();
  log.error("The 'x' is \"y\" {at} 20 °C.");
  const { time, ...rest } = JSON.parse(lines[0] ?? "") as Record<string, string>;
  assert.deepEqual(rest, { level: "ERROR", message: "The 'x' is \"y\" {at} 20 °C." });
  assert.equal(new Date(time ?? "").toISOString(), time);
  assert.ok(Date.parse(time ?? "") >= before);
  assert.equal(lines.length, 1);
});

Deno.test("only what is at or above the level is written", () => {
  for (const [index, level] of LEVELS.entries()) {
    const lines = captureLog({ level });
    logAll();
    assert.deepEqual(lines.map((line) => line.split(" ")[2]), LEVELS.slice(index));
    assert.equal(log.isDebug(), level === "DEBUG");
  }
});

Deno.test("no text can break out of its line or forge another", () => {
  const forged = "x\n2026-11-23 17:31:56.480 INFO     Stopped.\r\u001b[2K\u0085\u2028\0";
  const lines = captureLog();
  log.info(forged);
  assert.equal(
    withoutTime(lines[0] ?? ""),
    "INFO     x\\u000a2026-11-23 17:31:56.480 INFO     Stopped." +
      "\\u000d\\u001b[2K\\u0085\\u2028\\u0000",
  );
  fc.assert(fc.property(fc.string({ unit: codeUnit }), (text) => {
    for (const format of ["text", "json"] as const) {
      const [line = "", ...more] = captureWith(format, text);
      assert.deepEqual(more, []);
      assert.ok(line.endsWith("\n"));
      // deno-lint-ignore no-control-regex
      assert.doesNotMatch(line.slice(0, -1), /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
      if (format === "json") assert.equal(JSON.parse(line).message, text);
    }
  }));
});

function captureWith(format: "text" | "json", text: string): string[] {
  const lines = captureLog({ format });
  log.warning(text);
  return lines;
}

Deno.test("braces in a text are written as they are", () => {
  const lines = captureLog();
  for (const text of ["{text}", "{{x}}", "{", '{"timestamp": 1}']) log.info(text);
  assert.deepEqual(lines.map(withoutTime), [
    "INFO     {text}",
    "INFO     {{x}}",
    "INFO     {",
    'INFO     {"timestamp": 1}',
  ]);
});

Deno.test("a log that cannot be written does not stop the program", () => {
  const lines = captureLog();
  const write = (): never => {
    throw new Error("disk full");
  };
  configureLog({ level: "INFO", format: "text" }, { write });
  assert.doesNotThrow(() => log.error("x"));
  assert.deepEqual(lines, []);
});

Deno.test("lines for the journal have their priority in place of the time", () => {
  const lines: string[] = [];
  configureLog(
    { level: "DEBUG", format: "text" },
    { journal: true, write: (line) => lines.push(line) },
  );
  log.debug("a");
  log.info("b");
  log.warning("c");
  log.error("d");
  log.critical("e\nf");
  assert.deepEqual(lines, [
    "<7>DEBUG    a\n",
    "<6>INFO     b\n",
    "<4>WARNING  c\n",
    "<3>ERROR    d\n",
    "<2>CRITICAL e\\u000af\n",
  ]);
});

Deno.test("the journal is where JOURNAL_STREAM names the file that standard error is", () => {
  const { dev, ino } = fstatSync(2, { bigint: true });
  assert.equal(isJournal(`${dev}:${ino}`), true);
  for (const other of [`${dev}:${ino + 1n}`, "", "x", undefined]) {
    assert.equal(isJournal(other), false, String(other));
  }
});
