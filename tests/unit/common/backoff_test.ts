/** The delay before another attempt, and the sleep that waits for it. */
import assert from "node:assert/strict";
import { Backoff, sleep } from "../../../lib/common/backoff.ts";
import { FakeTime } from "../../fakes/fake_time.ts";
import { trackListeners } from "../../support/abort_listeners.ts";

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

Deno.test("the delays of two loggers differ at random", () => {
  const [one, other] = [new Backoff(), new Backoff()];
  assert.notEqual(one.nextDelayMs(), other.nextDelayMs());
});

Deno.test("sleep resolves after the given time", async () => {
  using time = new FakeTime();
  let awake = false;
  const sleeping = sleep(1_000, new AbortController().signal).then(() => awake = true);
  await time.pass(999);
  assert.equal(awake, false);
  await time.pass(1);
  assert.equal(awake, true);
  await sleeping;
});

Deno.test("sleep resolves at once when it is aborted, and leaves neither timer nor listener", async () => {
  using time = new FakeTime();
  const stop = new AbortController();
  const { signal } = stop;
  const listeners = trackListeners(signal);
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

Deno.test("fake time gives the real timers back when it is disposed", async () => {
  const { setTimeout, clearTimeout, setInterval, clearInterval } = globalThis;
  const [dateNow, performanceNow] = [Date.now, performance.now];
  {
    using time = new FakeTime();
    assert.notEqual(globalThis.setTimeout, setTimeout);
    let count = 0;
    const interval = globalThis.setInterval(() => count++, 100);
    await time.pass(350);
    globalThis.clearInterval(interval);
    assert.deepEqual([count, time.pending, performance.now()], [3, 0, 350]);
  }
  assert.deepEqual(
    [globalThis.setTimeout, globalThis.clearTimeout, Date.now],
    [setTimeout, clearTimeout, dateNow],
  );
  assert.deepEqual(
    [globalThis.setInterval, globalThis.clearInterval, performance.now],
    [setInterval, clearInterval, performanceNow],
  );
});
