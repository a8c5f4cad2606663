/** Messages in flight of connections that have ended. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { Delivery, type QoS } from "../../../lib/message/delivery.ts";
import { OrphanedMessages } from "../../../lib/mqtt/orphaned_messages.ts";

function deliver(topic: string, payload: string | Buffer, qos: QoS = 1): Delivery {
  return new Delivery(topic, Buffer.from(payload), { qos });
}

const ignore = (): void => {};

Deno.test("a message that is sent again is recognized by topic and payload, once", () => {
  const orphans = new OrphanedMessages(ignore);
  const [one, other] = [deliver("t", "1"), deliver("t", "2")];
  orphans.add([one, other]);
  assert.equal(orphans.take(deliver("t", "2")), other);
  assert.equal(orphans.take(deliver("t", "2")), undefined);
  assert.equal(orphans.take(deliver("t", "1")), one);
  assert.deepEqual([orphans.count, orphans.bytes], [0, 0]);
});

Deno.test("a message of another topic, payload or QoS is another message", () => {
  const orphans = new OrphanedMessages(ignore);
  const binary = Buffer.from([0xff, 0xfe, 0x00]);
  orphans.add([deliver("t", "1", 2), deliver("t", binary)]);
  for (
    const message of [
      ...[deliver("t", "1", 1), deliver("t", "1", 0), deliver("u", "1", 2), deliver("t", "11", 2)],
      ...[deliver("t", Buffer.from([0xfe, 0xff, 0x00])), deliver("t", "")],
    ]
  ) {
    assert.equal(orphans.take(message), undefined);
  }
  assert.equal(orphans.count, 2);
  assert.equal(orphans.take(deliver("t", binary))?.payload.equals(binary), true);
});

Deno.test("a message of QoS 0 never repeats another one", () => {
  const orphans = new OrphanedMessages(ignore);
  orphans.add([deliver("t", "1", 0)]);
  assert.equal(orphans.take(deliver("t", "1", 0)), undefined);
});

Deno.test("a message that has become safe takes up no room, and the listener is called", () => {
  let room = 0;
  const orphans = new OrphanedMessages(() => room++);
  const [stored, spooled, waiting] = [deliver("a", "12"), deliver("b", "34"), deliver("c", "5")];
  orphans.add([stored, spooled, waiting]);
  assert.deepEqual([orphans.count, orphans.bytes, room], [3, 5, 0]);
  stored.finish();
  spooled.markSafe();
  assert.deepEqual([orphans.count, orphans.bytes, room], [1, 1, 2]);
  assert.equal(orphans.take(deliver("a", "12")), undefined);
});

Deno.test("a message that was taken out belongs to its new connection only", () => {
  let room = 0;
  const orphans = new OrphanedMessages(() => room++);
  const delivery = deliver("t", "1");
  orphans.add([delivery]);
  assert.equal(orphans.take(deliver("t", "1")), delivery);
  let acknowledged = 0;
  delivery.onSafe = () => acknowledged++;
  delivery.finish();
  assert.deepEqual([acknowledged, room, orphans.count], [1, 0, 0]);
});

Deno.test("of two messages with the same content one is kept, and both can end", () => {
  const orphans = new OrphanedMessages(ignore);
  const [one, other] = [deliver("t", "12"), deliver("t", "12")];
  orphans.add([one]);
  orphans.add([other]);
  assert.deepEqual([orphans.count, orphans.bytes], [1, 2]);
  other.finish();
  assert.deepEqual([orphans.count, orphans.bytes], [1, 2], "the first one is still in flight");
  one.finish();
  assert.deepEqual([orphans.count, orphans.bytes], [0, 0]);
});

Deno.test("count and bytes are those of the messages in flight, whatever happens", () => {
  const event = fc.record({
    kind: fc.constantFrom("add", "take", "finish"),
    topic: fc.constantFrom("a", "b", "c"),
    payload: fc.constantFrom("", "1", "22", "333"),
  });
  fc.assert(fc.property(fc.array(event, { maxLength: 60 }), (events) => {
    const orphans = new OrphanedMessages(ignore);
    const kept = new Map<string, Delivery>();
    for (const { kind, topic, payload } of events) {
      const key = `${topic} ${payload}`;
      const message = deliver(topic, payload);
      if (kind === "add") {
        orphans.add([message]);
        if (!kept.has(key)) kept.set(key, message);
      } else if (kind === "take") {
        assert.equal(orphans.take(message), kept.get(key));
        kept.delete(key);
      } else {
        kept.get(key)?.finish();
        kept.delete(key);
      }
      const bytes = [...kept.values()].reduce((sum, { payload: { length } }) => sum + length, 0);
      assert.deepEqual([orphans.count, orphans.bytes], [kept.size, bytes]);
    }
  }));
});
