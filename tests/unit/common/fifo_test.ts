/** The queue: first in, first out, for any sequence of calls. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { Fifo } from "../../../lib/common/fifo.ts";

Deno.test("a queue returns its elements in the order of their insertion", () => {
  const queue = new Fifo<string>();
  assert.equal(queue.length, 0);
  assert.equal(queue.first, undefined);
  assert.equal(queue.shift(), undefined);
  for (const element of ["a", "b", "c"]) queue.push(element);
  assert.equal(queue.first, "a");
  assert.equal(queue.shift(), "a");
  queue.push("d");
  assert.deepEqual(queue.take(2), ["b", "c"]);
  assert.equal(queue.length, 1);
  assert.deepEqual(queue.take(5), ["d"]);
  assert.deepEqual(queue.take(1), []);
});

Deno.test("peek returns the oldest elements and does not remove them", () => {
  const queue = new Fifo<number>();
  assert.deepEqual(queue.peek(5), []);
  for (let element = 0; element < 3_000; element++) queue.push(element);
  queue.take(1_000);
  for (const max of [0, 1, 24, 25, 1_500, 2_000, 5_000]) {
    const expected = Array.from({ length: Math.min(max, 2_000) }, (_, index) => 1_000 + index);
    assert.deepEqual(queue.peek(max), expected);
    assert.equal(queue.length, 2_000);
  }
});

Deno.test("a queue behaves like an array for any sequence of calls", () => {
  const call = fc.oneof(
    fc.record({ push: fc.integer({ min: 0, max: 30_000 }) }),
    fc.record({ take: fc.integer({ min: 0, max: 40_000 }) }),
    fc.record({ peek: fc.integer({ min: 0, max: 40_000 }) }),
    fc.constant("shift" as const),
  );
  fc.assert(
    fc.property(fc.array(call), (calls) => {
      const queue = new Fifo<number>();
      let model: number[] = [];
      let next = 0;
      for (const call of calls) {
        if (call === "shift") {
          assert.equal(queue.shift(), model[0]);
          model = model.slice(1);
        } else if ("push" in call) {
          for (let count = 0; count < call.push; count++) {
            queue.push(next);
            model.push(next++);
          }
        } else if ("peek" in call) {
          assert.deepEqual(queue.peek(call.peek), model.slice(0, call.peek));
        } else {
          assert.deepEqual(queue.take(call.take), model.slice(0, call.take));
          model = model.slice(call.take);
        }
        assert.equal(queue.length, model.length);
        assert.equal(queue.first, model[0]);
      }
    }),
    { numRuns: 40 },
  );
});
