/** What a connection owes its broker: which acknowledgement, when, and in which order. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { AcknowledgementQueue, Delivery } from "../../../lib/message/delivery.ts";
import type { QoS } from "../../../lib/config/config.ts";
import { settle } from "../../fakes/fake_time.ts";

const TYPES: Readonly<Record<number, string>> = { 0x40: "PUBACK", 0x50: "PUBREC", 0x70: "PUBCOMP" };
const MAX_HALF_DONE = 250;

/** A queue whose packets are collected as `PUBREC 7`. */
class Wire {
  readonly sent: string[] = [];
  writes = 0;
  settledCalls = 0;
  readonly queue = new AcknowledgementQueue(
    (bytes) => this.#read(bytes),
    () => this.settledCalls++,
  );

  /** A message of the broker's. */
  add(packetId: number, qos: QoS = 2): Delivery {
    const delivery = new Delivery("t", Buffer.alloc(0), { qos });
    this.queue.add(delivery, packetId);
    return delivery;
  }

  /** What has been sent since the last call. */
  async take(): Promise<string[]> {
    await settle();
    return this.sent.splice(0);
  }

  #read(bytes: Buffer): void {
    this.writes++;
    assert.equal(bytes.length % 4, 0);
    for (let offset = 0; offset < bytes.length; offset += 4) {
      assert.equal(bytes[offset + 1], 2, "remaining length");
      this.sent.push(`${TYPES[bytes[offset] ?? 0]} ${bytes.readUInt16BE(offset + 2)}`);
    }
  }
}

Deno.test("nothing is acknowledged before it is settled", async () => {
  const wire = new Wire();
  const first = wire.add(1, 1);
  const second = wire.add(2, 2);
  assert.deepEqual(await wire.take(), []);
  assert.equal(wire.queue.unsettled, 2);
  first.settle();
  assert.deepEqual(await wire.take(), ["PUBACK 1"]);
  assert.equal(wire.queue.unsettled, 1);
  second.settle();
  assert.deepEqual(await wire.take(), ["PUBREC 2"]);
  assert.equal(wire.queue.unsettled, 0);
  assert.ok(first.settled && second.settled);
});

Deno.test("acknowledgements leave in the order in which the messages came, in one write", async () => {
  const wire = new Wire();
  const deliveries = [0x101, 2, 65_535, 4].map((id, index) => wire.add(id, index === 1 ? 1 : 2));
  for (const delivery of deliveries.slice(1).toReversed()) delivery.settle();
  assert.deepEqual(await wire.take(), []);
  deliveries[0]?.settle();
  assert.deepEqual(await wire.take(), ["PUBREC 257", "PUBACK 2", "PUBREC 65535", "PUBREC 4"]);
  assert.equal(wire.writes, 1);
});

Deno.test("any order of settling gives the order of arrival", async () => {
  const order = fc.shuffledSubarray([...Array(40).keys()], { minLength: 40 });
  await fc.assert(fc.asyncProperty(order, async (indices) => {
    const wire = new Wire();
    const deliveries = indices.map((_, index) => wire.add(index + 1, 1));
    for (const index of indices) {
      deliveries[index]?.settle();
      if (index % 3 === 0) await settle();
    }
    const expected = indices.map((_, index) => `PUBACK ${index + 1}`);
    assert.deepEqual(await wire.take(), expected);
  }));
});

Deno.test("a PUBREL is answered with PUBCOMP, whether its id is known or not", async () => {
  const wire = new Wire();
  wire.queue.complete(9);
  assert.deepEqual(await wire.take(), ["PUBCOMP 9"]);
  wire.add(1).settle();
  assert.deepEqual(await wire.take(), ["PUBREC 1"]);
  assert.equal(wire.queue.idle, false);
  wire.queue.complete(1);
  assert.deepEqual(await wire.take(), ["PUBCOMP 1"]);
  assert.equal(wire.queue.idle, true);
});

Deno.test("a packet id in use again is acknowledged only when its first handover is done", async () => {
  const wire = new Wire();
  for (const id of [1, 1, 2]) wire.add(id).settle();
  assert.deepEqual(await wire.take(), ["PUBREC 1"]);
  assert.equal(wire.queue.idle, false);
  wire.queue.complete(1);
  assert.deepEqual((await wire.take()).toSorted(), ["PUBCOMP 1", "PUBREC 1", "PUBREC 2"]);
  wire.queue.complete(1);
  wire.queue.complete(2);
  assert.deepEqual(await wire.take(), ["PUBCOMP 1", "PUBCOMP 2"]);
  assert.equal(wire.queue.idle, true);
});

Deno.test("250 handovers of QoS 2 may be half done, and each done lets another begin", async () => {
  const wire = new Wire();
  for (let id = 1; id <= MAX_HALF_DONE + 5; id++) wire.add(id).settle();
  assert.equal((await wire.take()).length, MAX_HALF_DONE);
  assert.equal(wire.queue.unsettled, 0);
  wire.queue.complete(100);
  assert.deepEqual((await wire.take()).toSorted(), ["PUBCOMP 100", `PUBREC ${MAX_HALF_DONE + 1}`]);
  for (let id = 1; id <= MAX_HALF_DONE + 5; id++) {
    wire.queue.complete(id);
    await settle();
  }
  assert.equal((await wire.take()).filter((packet) => packet.startsWith("PUBREC")).length, 4);
  assert.equal(wire.queue.idle, true);
});

Deno.test("QoS 1 has no handover to wait for: one id may be used again and again", async () => {
  const wire = new Wire();
  for (let count = 0; count < 2 * MAX_HALF_DONE; count++) wire.add(7, 1).settle();
  assert.equal((await wire.take()).length, 2 * MAX_HALF_DONE);
  assert.equal(wire.queue.idle, true);
});

Deno.test("after the connection's end nothing is sent, and what is not settled is returned", async () => {
  const wire = new Wire();
  const [first, second, third] = [wire.add(1), wire.add(2), wire.add(3)];
  second.settle();
  await settle();
  const scheduled = wire.add(4, 1);
  scheduled.settle();
  assert.deepEqual(wire.queue.close(), [first, third]);
  first.settle();
  wire.queue.complete(2);
  third.settle();
  wire.queue.flush();
  assert.deepEqual(await wire.take(), []);
});

Deno.test("a delivery that comes again is acknowledged to the connection that brought it last", async () => {
  const [old, current] = [new Wire(), new Wire()];
  const delivery = old.add(3, 1);
  assert.deepEqual(old.queue.close(), [delivery]);
  current.queue.add(delivery, 8);
  assert.equal(current.queue.unsettled, 1);
  delivery.settle();
  assert.deepEqual(await old.take(), []);
  assert.deepEqual(await current.take(), ["PUBACK 8"]);
});

Deno.test("whoever waits for room is told when deliveries are settled", async () => {
  const wire = new Wire();
  const delivery = wire.add(1);
  await settle();
  const before = wire.settledCalls;
  delivery.settle();
  await settle();
  assert.ok(wire.settledCalls > before);
});

Deno.test("settling twice acknowledges once", async () => {
  const wire = new Wire();
  const delivery = wire.add(1, 1);
  delivery.settle();
  delivery.settle();
  assert.deepEqual(await wire.take(), ["PUBACK 1"]);
});

Deno.test("a delivery that is safe on disk is acknowledged before it has its outcome", async () => {
  const wire = new Wire();
  const delivery = wire.add(1, 1);
  delivery.settle();
  assert.deepEqual([delivery.settled, delivery.finished], [true, false]);
  assert.deepEqual(await wire.take(), ["PUBACK 1"]);
  delivery.finish();
  assert.deepEqual([delivery.settled, delivery.finished], [true, true]);
  assert.deepEqual(await wire.take(), []);
});

Deno.test("a delivery that has its outcome is settled by that", async () => {
  const wire = new Wire();
  const delivery = wire.add(1, 1);
  assert.deepEqual([delivery.settled, delivery.finished], [false, false]);
  delivery.finish();
  assert.deepEqual([delivery.settled, delivery.finished], [true, true]);
  assert.deepEqual(await wire.take(), ["PUBACK 1"]);
});

Deno.test("who is told of a delivery sees it settled, and is told once", () => {
  for (const end of ["settle", "finish"] as const) {
    const delivery = new Delivery("t", Buffer.alloc(0), { qos: 1 });
    const seen: boolean[][] = [];
    delivery.onSettled = () => assert.fail("it was replaced");
    delivery.onSettled = () => seen.push([delivery.settled, delivery.finished]);
    delivery[end]();
    delivery.finish();
    assert.deepEqual(seen, [[true, end === "finish"]]);
  }
});
