import assert from "node:assert/strict";
import { Histogram } from "../../../lib/monitoring/histograms.ts";
import { History } from "../../../lib/monitoring/history.ts";

const IDLE = { received: 0, stored: 0, waiting: 0, spooled: 0 };

Deno.test("a sample has the counts and the latencies of its second", () => {
  const history = new History();
  history.record(Float64Array.of(5, 1, 3));
  history.record(Float64Array.of(100));
  const first = history.sample({ received: 10, stored: 4, waiting: 6, spooled: 0 });
  assert.deepEqual(
    [first.received, first.stored, first.waiting, first.latencyMs, first.latencyMaxMs],
    [10, 4, 6, 5, 100],
  );
  const second = history.sample({ received: 11, stored: 11, waiting: 0, spooled: 0 });
  assert.deepEqual(
    [second.received, second.stored, second.latencyMs, second.latencyMaxMs],
    [1, 7, null, null],
  );
});

Deno.test("the maximum latency is that of all readings, not only of those kept for the median", () => {
  const history = new History();
  for (let batch = 0; batch < 100; batch++) history.record(new Float64Array(2_000).fill(2));
  history.record(Float64Array.of(1, 999, 1));
  const { latencyMs, latencyMaxMs } = history.sample(IDLE);
  assert.deepEqual([latencyMs, latencyMaxMs], [2, 999]);
});

Deno.test("the history covers fifteen minutes", () => {
  const history = new History();
  for (let received = 1; received <= 1_000; received++) history.sample({ ...IDLE, received });
  assert.equal(history.samples.length, 900);
});

Deno.test("a value at the upper bound of a bucket belongs to it, as in Prometheus", () => {
  const histogram = new Histogram([1, 10, 100]);
  for (const value of [1, 1.5, 10, 0, 1000, 10.1, 100]) histogram.add(value);
  assert.deepEqual(histogram.counts, [2, 2, 2, 1]);
  assert.equal(histogram.sum, 1122.6);
});
