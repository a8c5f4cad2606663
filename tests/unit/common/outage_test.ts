/** Outages in the log, and when the parties of an outage retry. */
import assert from "node:assert/strict";
import { Outage } from "../../../lib/common/outage.ts";
import { captureLog, withoutTime } from "../../support/captured_log.ts";
import { FakeTime, settle } from "../../fakes/fake_time.ts";

/** Reports a failure of a party; the returned function says whether the party is to retry now. */
function fail(outage: Outage, party: string, reason: string): () => boolean {
  let isDue = false;
  const { signal } = new AbortController();
  outage.failed(party, { reason, delayMs: 15_000, signal }).then(() => isDue = true);
  return () => isDue;
}

Deno.test("an outage is one ERROR, one INFO with its duration, and DEBUG in between", async () => {
  using time = new FakeTime();
  const lines = captureLog();
  let waiting = 0;
  const outage = new Outage("Database 'lab'", () => waiting);
  outage.succeeded("a");
  assert.deepEqual(lines, []);
  fail(outage, "a", "refused");
  await time.pass(2_000);
  waiting = 17;
  fail(outage, "a", "refused");
  fail(outage, "a", "starting up");
  await time.pass(1_250);
  waiting = 5;
  outage.succeeded("a");
  outage.succeeded("a");
  assert.deepEqual(lines.map(withoutTime), [
    "ERROR    Database 'lab' is not available: refused. Retrying until it is.",
    "DEBUG    Database 'lab' is still not available: refused.",
    "DEBUG    Database 'lab' is still not available: starting up.",
    "INFO     Database 'lab' is available again after 3.3 s. 17 messages waited.",
  ]);
});

Deno.test("an outage ends with the first success, and a party that keeps failing is logged once", () => {
  using _ = new FakeTime();
  const lines = captureLog({ level: "INFO" });
  const outage = new Outage("It");
  fail(outage, "a", "x");
  fail(outage, "b", "y");
  outage.succeeded("c");
  assert.equal(lines.length, 1);
  outage.succeeded("a");
  assert.deepEqual(withoutTime(lines[1] ?? ""), "INFO     It is available again after 0.0 s.");
  fail(outage, "b", "y");
  outage.succeeded("a");
  assert.equal(lines.length, 2);
  outage.succeeded("b");
  fail(outage, "b", "y");
  assert.equal(lines.length, 3);
});

Deno.test("a failed party retries after its delay, or at once when another party succeeds", async () => {
  using time = new FakeTime();
  captureLog();
  const outage = new Outage("It");
  const first = fail(outage, "a", "x");
  await time.pass(14_999);
  assert.equal(first(), false);
  await time.pass(1);
  assert.equal(first(), true);
  const [again, other] = [fail(outage, "a", "x"), fail(outage, "b", "x")];
  await settle();
  assert.deepEqual([again(), other()], [false, false]);
  outage.succeeded("b");
  await settle();
  assert.deepEqual([again(), other()], [true, true]);
  assert.equal(time.pending, 0);
  const stop = new AbortController();
  const last = outage.failed("c", { reason: "x", delayMs: 60_000, signal: stop.signal });
  stop.abort();
  await last;
  assert.equal(time.pending, 0);
});
