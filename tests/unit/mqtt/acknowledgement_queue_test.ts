/** The acknowledgements of a connection: which, when, and in which order. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { Delivery, type QoS } from "../../../lib/message/delivery.ts";
import { AcknowledgementQueue } from "../../../lib/mqtt/acknowledgement_queue.ts";
import { settle } from "../../fakes/fake_time.ts";

const TYPES: Readonly<Record<number, string>> = { 0x40: "PUBACK", 0x50: "PUBREC", 0x70: "PUBCOMP" };
const MAX_UNRELEASED = 250;

/** A queue whose packets are collected as `PUBREC 7`. */
class Wire {
  readonly sent: string[] = [];
  writes = 0;
  flushes = 0;
  readonly queue = new AcknowledgementQueue(
    (bytes) => this.#read(bytes),
    () => this.flushes++,
  );

  /** A message from the broker. */
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

Deno.test("no message is acknowledged before it is safe", async () => {
  const wire = new Wire();
  const first = wire.add(1, 1);
  const second = wire.add(2, 2);
  assert.deepEqual(await wire.take(), []);
  assert.equal(wire.queue.inFlight, 2);
  first.markSafe();
  assert.deepEqual(await wire.take(), ["PUBACK 1"]);
  assert.equal(wire.queue.inFlight, 1);
  second.markSafe();
  assert.deepEqual(await wire.take(), ["PUBREC 2"]);
  assert.equal(wire.queue.inFlight, 0);
  assert.ok(first.isSafe && second.isSafe);
});

Deno.test("acknowledgements leave in the order of arrival, in one write", async () => {
  const wire = new Wire();
  const deliveries = [0x101, 2, 65_535, 4].map((id, index) => wire.add(id, index === 1 ? 1 : 2));
  for (const delivery of deliveries.slice(1).toReversed()) delivery.markSafe();
  assert.deepEqual(await wire.take(), []);
  deliveries[0]?.markSafe();
  assert.deepEqual(await wire.take(), ["PUBREC 257", "PUBACK 2", "PUBREC 65535", "PUBREC 4"]);
  assert.equal(wire.writes, 1);
});

Deno.test("messages that become safe in any order are acknowledged in the order of arrival", async () => {
  const order = fc.shuffledSubarray([...Array(40).keys()], { minLength: 40 });
  await fc.assert(fc.asyncProperty(order, async (indices) => {
    const wire = new Wire();
    const deliveries = indices.map((_, index) => wire.add(index + 1, 1));
    for (const index of indices) {
      deliveries[index]?.markSafe();
      if (index % 3 === 0) await settle();
    }
    const expected = indices.map((_, index) => `PUBACK ${index + 1}`);
    assert.deepEqual(await wire.take(), expected);
  }));
});

Deno.test("a PUBREL is answered with a PUBCOMP, also for an unknown packet id", async () => {
  const wire = new Wire();
  wire.queue.release(9);
  assert.deepEqual(await wire.take(), ["PUBCOMP 9"]);
  wire.add(1).markSafe();
  assert.deepEqual(await wire.take(), ["PUBREC 1"]);
  assert.equal(wire.queue.isIdle, false);
  wire.queue.release(1);
  assert.deepEqual(await wire.take(), ["PUBCOMP 1"]);
  assert.equal(wire.queue.isIdle, true);
});

Deno.test("a reused packet id is acknowledged only after the PUBREL of its first use", async () => {
  const wire = new Wire();
  for (const id of [1, 1, 2]) wire.add(id).markSafe();
  assert.deepEqual(await wire.take(), ["PUBREC 1"]);
  assert.equal(wire.queue.isIdle, false);
  wire.queue.release(1);
  assert.deepEqual((await wire.take()).toSorted(), ["PUBCOMP 1", "PUBREC 1", "PUBREC 2"]);
  wire.queue.release(1);
  wire.queue.release(2);
  assert.deepEqual(await wire.take(), ["PUBCOMP 1", "PUBCOMP 2"]);
  assert.equal(wire.queue.isIdle, true);
});

Deno.test("at most 250 PUBRECs wait for their PUBREL, and each PUBREL allows another", async () => {
  const wire = new Wire();
  for (let id = 1; id <= MAX_UNRELEASED + 5; id++) wire.add(id).markSafe();
  assert.equal((await wire.take()).length, MAX_UNRELEASED);
  assert.equal(wire.queue.inFlight, 0);
  wire.queue.release(100);
  assert.deepEqual((await wire.take()).toSorted(), ["PUBCOMP 100", `PUBREC ${MAX_UNRELEASED + 1}`]);
  for (let id = 1; id <= MAX_UNRELEASED + 5; id++) {
    wire.queue.release(id);
    await settle();
  }
  assert.equal((await wire.take()).filter((packet) => packet.startsWith("PUBREC")).length, 4);
  assert.equal(wire.queue.isIdle, true);
});

Deno.test("with QoS 1 a packet id may be reused at once", async () => {
  const wire = new Wire();
  for (let count = 0; count < 2 * MAX_UNRELEASED; count++) wire.add(7, 1).markSafe();
  assert.equal((await wire.take()).length, 2 * MAX_UNRELEASED);
  assert.equal(wire.queue.isIdle, true);
});

Deno.test("after the end of the connection nothing is sent, and messages in flight are returned", async () => {
  const wire = new Wire();
  const [first, second, third] = [wire.add(1), wire.add(2), wire.add(3)];
  second.markSafe();
  await settle();
  const scheduled = wire.add(4, 1);
  scheduled.markSafe();
  assert.deepEqual(wire.queue.close(), [first, third]);
  first.markSafe();
  wire.queue.release(2);
  third.markSafe();
  wire.queue.flush();
  assert.deepEqual(await wire.take(), []);
});

Deno.test("a redelivered message is acknowledged to the connection that delivered it last", async () => {
  const [old, current] = [new Wire(), new Wire()];
  const delivery = old.add(3, 1);
  assert.deepEqual(old.queue.close(), [delivery]);
  current.queue.add(delivery, 8);
  assert.equal(current.queue.inFlight, 1);
  delivery.markSafe();
  assert.deepEqual(await old.take(), []);
  assert.deepEqual(await current.take(), ["PUBACK 8"]);
});

Deno.test("the listener is called when fewer messages are in flight", async () => {
  const wire = new Wire();
  const delivery = wire.add(1);
  await settle();
  const before = wire.flushes;
  delivery.markSafe();
  await settle();
  assert.ok(wire.flushes > before);
});

Deno.test("a message that becomes safe twice is acknowledged once", async () => {
  const wire = new Wire();
  const delivery = wire.add(1, 1);
  delivery.markSafe();
  delivery.markSafe();
  assert.deepEqual(await wire.take(), ["PUBACK 1"]);
});

Deno.test("a message on disk is acknowledged before it has an outcome", async () => {
  const wire = new Wire();
  const delivery = wire.add(1, 1);
  delivery.markSafe();
  assert.deepEqual([delivery.isSafe, delivery.isDone], [true, false]);
  assert.deepEqual(await wire.take(), ["PUBACK 1"]);
  delivery.finish();
  assert.deepEqual([delivery.isSafe, delivery.isDone], [true, true]);
  assert.deepEqual(await wire.take(), []);
});

Deno.test("a message with an outcome is safe", async () => {
  const wire = new Wire();
  const delivery = wire.add(1, 1);
  assert.deepEqual([delivery.isSafe, delivery.isDone], [false, false]);
  delivery.finish();
  assert.deepEqual([delivery.isSafe, delivery.isDone], [true, true]);
  assert.deepEqual(await wire.take(), ["PUBACK 1"]);
});
