/** Trying again: how long between attempts, what is told of it, and errors in words. */
import assert from "node:assert/strict";
import { Backoff, sleep } from "../../../lib/common/backoff.ts";
import { describeError } from "../../../lib/common/error_text.ts";
import { Outage } from "../../../lib/common/outage.ts";
import { captureLog, withoutTime } from "../../support/captured_log.ts";
import { FakeTime, settle } from "../../fakes/fake_time.ts";

Deno.test("delays double from 100 ms to 15 s and stay there, less up to a half at random", () => {
  const ceilings = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000, 15_000];
  for (const [random, part] of [[0, 0.5], [0.5, 0.75], [1, 1]] as const) {
    const backoff = new Backoff();
    const delays = ceilings.map(() => backoff.nextDelayMs(() => random));
    assert.deepEqual(delays, ceilings.map((ceiling) => ceiling * part));
    for (let attempt = 0; attempt < 5_000; attempt++) backoff.nextDelayMs();
    assert.equal(backoff.nextDelayMs(() => 1), 15_000);
    backoff.reset();
    assert.equal(backoff.nextDelayMs(() => 1), 100);
  }
});

Deno.test("two loggers do not knock in step", () => {
  const [one, other] = [new Backoff(), new Backoff()];
  assert.notEqual(one.nextDelayMs(), other.nextDelayMs());
});

Deno.test("sleep lasts as long as it is told", async () => {
  using time = new FakeTime();
  let awake = false;
  const sleeping = sleep(1_000, new AbortController().signal).then(() => awake = true);
  await time.pass(999);
  assert.equal(awake, false);
  await time.pass(1);
  assert.equal(awake, true);
  await sleeping;
});

Deno.test("sleep ends at once when it is aborted, and leaves neither timer nor listener", async () => {
  using time = new FakeTime();
  const stop = new AbortController();
  const { signal } = stop;
  const listeners = new Set<unknown>();
  const { addEventListener, removeEventListener } = signal;
  signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
    listeners.add(args[1]);
    addEventListener.apply(signal, args);
  };
  signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
    listeners.delete(args[1]);
    removeEventListener.apply(signal, args);
  };
  const short = sleep(10, signal);
  const long = sleep(10_000, signal);
  assert.deepEqual([listeners.size, time.pending], [2, 2]);
  await time.pass(10);
  await short;
  assert.deepEqual([listeners.size, time.pending], [1, 1]);
  stop.abort();
  await long;
  assert.deepEqual([listeners.size, time.pending], [0, 0]);
  await sleep(10_000, signal);
  assert.equal(time.pending, 0);
});

/** Lets a party fail, and returns whether it is to try again by now. */
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

Deno.test("an outage lasts until one succeeds, and who goes on failing is told of once", () => {
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

Deno.test("whoever failed tries again after the delay, or at once when another succeeds", async () => {
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

Deno.test("errors are told in words, without a full stop", () => {
  const withCode = (code: string): Error => Object.assign(new Error("connect X"), { code });
  const cases: [unknown, RegExp][] = [
    [withCode("ECONNREFUSED"), /^connection refused \(/],
    [withCode("ENOTFOUND"), /^the host name is unknown$/],
    [withCode("EWHATEVER"), /^connect X$/],
    [new Error("It broke."), /^It broke$/],
    [Object.assign(new Error(""), { code: "EODD" }), /^EODD$/],
    [new TypeError(""), /^TypeError$/],
    ["text", /^text$/],
    [
      new AggregateError([withCode("ECONNREFUSED"), withCode("ECONNREFUSED")]),
      /^connection re[^;]*$/,
    ],
    [new AggregateError([new Error("a"), new Error("b.")]), /^a; b$/],
  ];
  for (const [error, words] of cases) assert.match(describeError(error), words);
});

Deno.test("the fake time of these tests gives the real one back", async () => {
  const { setTimeout, clearTimeout } = globalThis;
  {
    using _ = new FakeTime();
    assert.notEqual(globalThis.setTimeout, setTimeout);
  }
  assert.equal(globalThis.setTimeout, setTimeout);
  assert.equal(globalThis.clearTimeout, clearTimeout);
  await settle();
});
