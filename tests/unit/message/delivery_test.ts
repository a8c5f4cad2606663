/** The states of a delivery, and its one listener. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Delivery } from "../../../lib/message/delivery.ts";

function createDelivery(): Delivery {
  return new Delivery("t", Buffer.alloc(0), { qos: 1 });
}

Deno.test("a delivery is in flight, then safe, then done, and never goes back", () => {
  const delivery = createDelivery();
  assert.equal(delivery.state, "in flight");
  delivery.markSafe();
  assert.deepEqual([delivery.state, delivery.isSafe, delivery.isDone], ["safe", true, false]);
  delivery.finish();
  assert.deepEqual([delivery.state, delivery.isSafe, delivery.isDone], ["done", true, true]);
  delivery.markSafe();
  assert.equal(delivery.state, "done");
});

Deno.test("the last listener is called once, when the delivery leaves 'in flight'", () => {
  for (const end of ["markSafe", "finish"] as const) {
    const delivery = createDelivery();
    const states: string[] = [];
    delivery.onSafe = () => assert.fail("it was replaced");
    delivery.onSafe = () => states.push(delivery.state);
    delivery[end]();
    delivery.markSafe();
    delivery.finish();
    assert.deepEqual(states, [end === "finish" ? "done" : "safe"]);
  }
});

Deno.test("a listener that is set after the delivery is safe is not called", () => {
  const delivery = createDelivery();
  delivery.markSafe();
  delivery.onSafe = () => assert.fail("the delivery was safe before");
  delivery.finish();
});
