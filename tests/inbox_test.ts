/** The inbox: batches that form by themselves, for consumers that wait. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Delivery } from "../lib/delivery.ts";
import { Inbox } from "../lib/inbox.ts";

const MAX_QOS_0 = 100_000;
const never = new AbortController().signal;

function delivery(name: string, qos: 0 | 1 | 2 = 1): Delivery {
  return new Delivery(name, Buffer.alloc(0), { qos });
}

function names(batch: readonly Delivery[]): string {
  return batch.map(({ topic }) => topic).join("");
}

/** Lets everything that can go on without a timer go on. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
}

Deno.test("what waits is taken in batches, oldest first", async () => {
  const inbox = new Inbox();
  for (const name of "abcde") inbox.push(delivery(name));
  assert.equal(inbox.length, 5);
  assert.equal(names(await inbox.take(2, never)), "ab");
  inbox.push(delivery("f"));
  assert.equal(names(await inbox.take(100, never)), "cdef");
  assert.equal(inbox.length, 0);
});

Deno.test("a consumer that waits gets a single delivery at once, and the next batch gathers", async () => {
  const inbox = new Inbox();
  const first = inbox.take(100, never);
  await settle();
  inbox.push(delivery("a"));
  assert.equal(names(await first), "a");
  for (const name of "bcd") inbox.push(delivery(name));
  assert.equal(names(await inbox.take(100, never)), "bcd");
});

Deno.test("several consumers share what comes, and none of it is given twice or left", async () => {
  const inbox = new Inbox();
  const stop = new AbortController();
  const taken: string[] = [];
  const consume = async (): Promise<void> => {
    for (let batch; (batch = await inbox.take(3, stop.signal)).length > 0;) {
      taken.push(names(batch));
    }
  };
  const consumers = [consume(), consume(), consume()];
  for (const word of ["a", "bcdefghijk", "lm", "", "nopqrstuvwxyz"]) {
    for (const name of word) inbox.push(delivery(name));
    await settle();
    assert.equal(inbox.length, 0);
  }
  stop.abort();
  await Promise.all(consumers);
  assert.equal([...taken.join("")].toSorted().join(""), "abcdefghijklmnopqrstuvwxyz");
  assert.ok(taken.every((batch) => batch.length <= 3));
});

Deno.test("an abort ends the waiting, and what came is left for others", async () => {
  const inbox = new Inbox();
  const stop = new AbortController();
  const waiting = inbox.take(1, stop.signal);
  await settle();
  stop.abort();
  assert.deepEqual(await waiting, []);
  inbox.push(delivery("a"));
  assert.deepEqual(await inbox.take(1, stop.signal), []);
  assert.equal(names(await inbox.take(1, never)), "a");
});

Deno.test("waiting leaves no listener on the signal", async () => {
  const { signal } = new AbortController();
  let listeners = 0;
  const { addEventListener, removeEventListener } = signal;
  signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
    listeners++;
    addEventListener.apply(signal, args);
  };
  signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
    listeners--;
    removeEventListener.apply(signal, args);
  };
  const inbox = new Inbox();
  for (let round = 0; round < 5; round++) {
    const batch = inbox.take(1, signal);
    await settle();
    assert.equal(listeners, 1);
    inbox.push(delivery("a"));
    await batch;
    assert.equal(listeners, 0);
  }
});

Deno.test("100,000 deliveries of QoS 0 may wait, and any number of QoS 1 and 2", async () => {
  const inbox = new Inbox();
  for (let count = 0; count < MAX_QOS_0; count++) assert.ok(inbox.push(delivery("z", 0)));
  assert.equal(inbox.push(delivery("z", 0)), false);
  assert.ok(inbox.push(delivery("o", 1)));
  assert.ok(inbox.push(delivery("t", 2)));
  assert.equal(inbox.length, MAX_QOS_0 + 2);
  await inbox.take(1, never);
  assert.equal(inbox.push(delivery("z", 0)), true);
  assert.equal(inbox.push(delivery("z", 0)), false);
});

Deno.test("an inbox says whether it is closed", () => {
  const inbox = new Inbox();
  assert.equal(inbox.closed, false);
  inbox.close();
  assert.equal(inbox.closed, true);
});
