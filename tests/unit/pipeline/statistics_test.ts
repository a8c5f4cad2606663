/** The counts: each received or found message has one outcome, and the line has all outcomes. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { type Outcome, Statistics } from "../../../lib/pipeline/statistics.ts";

const OUTCOMES: readonly Outcome[] = [
  "stored",
  "duplicate",
  "unknown",
  "disabled",
  "rejected",
  "dropped",
];

Deno.test("without a spool, messages without an outcome are waiting", () => {
  const statistics = new Statistics();
  assert.equal(
    String(statistics),
    "0 messages received, 0 stored, 0 duplicates, 0 of unknown sensors, 0 of disabled sensors, " +
      "0 rejected, 0 waiting",
  );
  statistics.received = 10;
  for (const outcome of OUTCOMES) statistics.outcomes[outcome]++;
  statistics.redelivered = 3;
  assert.equal(statistics.waiting, 4);
  assert.equal(
    String(statistics),
    "10 messages received, 1 stored, 1 duplicate, 1 of unknown sensors, 1 of disabled sensors, " +
      "1 rejected, 3 redelivered while in flight, 1 dropped, 4 waiting",
  );
});

Deno.test("messages that an earlier run left in the spool are found, and stay in the sum", () => {
  const spool = { count: 7, unreadable: 0 };
  const statistics = new Statistics(spool);
  assert.deepEqual([statistics.found, statistics.spooled, statistics.waiting], [7, 7, 0]);
  statistics.received = 5;
  statistics.outcomes.stored = 6;
  Object.assign(spool, { count: 1, unreadable: 2 });
  assert.deepEqual([statistics.found, statistics.spooled, statistics.waiting], [7, 1, 3]);
  assert.equal(
    String(statistics),
    "5 messages received, 7 found in the spool, 6 stored, 0 duplicates, 0 of unknown sensors, " +
      "0 of disabled sensors, 0 rejected, 2 unreadable in the spool, 1 in the spool, 3 waiting",
  );
});

Deno.test("the numbers of the line always add up", () => {
  const number = fc.nat({ max: 1_000_000 });
  const counts = fc.tuple(...Array.from({ length: 10 }, () => number));
  fc.assert(fc.property(counts, ([found, received, count, unreadable, ...outcomes]) => {
    const spool = { count: found as number, unreadable: 0 };
    const statistics = new Statistics(spool);
    statistics.received = received as number;
    spool.count = count as number;
    spool.unreadable = unreadable as number;
    for (const [index, outcome] of OUTCOMES.entries()) {
      statistics.outcomes[outcome] = outcomes[index] as number;
    }
    const parts = String(statistics).split(", ").map((part) => Number.parseInt(part));
    const inward = (received as number) + (found as number);
    const total = parts.reduce((sum, part) => sum + part, 0);
    assert.equal(total - inward, inward, String(statistics));
  }));
});
