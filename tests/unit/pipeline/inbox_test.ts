/** The inbox: batches for waiting consumers, from memory and from the spool. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { Delivery } from "../../../lib/message/delivery.ts";
import { Batch, MAX_BATCH_ROWS } from "../../../lib/pipeline/batch.ts";
import { Inbox } from "../../../lib/pipeline/inbox.ts";
import { Overflow } from "../../../lib/pipeline/overflow.ts";
import { Spool } from "../../../lib/spool/spool.ts";
import { Statistics } from "../../../lib/pipeline/statistics.ts";
import { captureLog } from "../../support/captured_log.ts";
import { FakeTime, settle } from "../../fakes/fake_time.ts";
import { message, messages, refuseWrites, TemporarySpool } from "../../support/temporary_spool.ts";

const MAX_QOS_0 = 100_000;
const never = new AbortController().signal;

function names(batch: Batch | undefined): string {
  return batch?.unfinished.map(({ topic }) => topic).join("") ?? "nothing";
}

function finishAll(inbox: Inbox, batch: Batch): void {
  for (const delivery of batch.unfinished) delivery.finish();
  inbox.finish(batch);
}

/** Takes the next batch; undefined if a consumer would have to wait. */
async function takeNow(inbox: Inbox): Promise<Batch | undefined> {
  const stop = new AbortController();
  const taking = inbox.take(stop.signal);
  await settle();
  stop.abort();
  return await taking;
}

Deno.test("waiting deliveries are taken in batches, oldest first", async () => {
  const inbox = new Inbox();
  const deliveries = messages(MAX_BATCH_ROWS + 3);
  for (const delivery of deliveries) inbox.push(delivery);
  assert.equal(inbox.length, MAX_BATCH_ROWS + 3);
  assert.deepEqual((await inbox.take(never))?.unfinished, deliveries.slice(0, MAX_BATCH_ROWS));
  inbox.push(message("x"));
  const last = deliveries.slice(MAX_BATCH_ROWS).map(({ topic }) => topic);
  assert.equal(names(await inbox.take(never)), [...last, "x"].join(""));
  assert.equal(inbox.length, 0);
  assert.equal(inbox.takenCount, MAX_BATCH_ROWS + 4);
});

Deno.test("a waiting consumer gets a single delivery at once, and the next batch gathers", async () => {
  const inbox = new Inbox();
  const first = inbox.take(never);
  await settle();
  inbox.push(message("a"));
  assert.equal(names(await first), "a");
  for (const name of "bcd") inbox.push(message(name));
  assert.equal(names(await inbox.take(never)), "bcd");
});

Deno.test("several consumers share the deliveries, and none is given twice or left", async () => {
  const inbox = new Inbox();
  const stop = new AbortController();
  const taken: string[] = [];
  const consume = async (): Promise<void> => {
    for (let batch; (batch = await inbox.take(stop.signal)) !== undefined;) {
      taken.push(names(batch));
      await settle();
      finishAll(inbox, batch);
    }
  };
  const consumers = [consume(), consume(), consume()];
  for (const word of ["a", "bcdefghijk", "lm", "", "nopqrstuvwxyz"]) {
    for (const name of word) inbox.push(message(name));
    await settle();
    await settle();
    assert.equal(inbox.length, 0);
  }
  stop.abort();
  await Promise.all(consumers);
  assert.equal([...taken.join("")].toSorted().join(""), "abcdefghijklmnopqrstuvwxyz");
});

Deno.test("an abort ends the wait, and leaves the deliveries to other consumers", async () => {
  const inbox = new Inbox();
  const stop = new AbortController();
  const waiting = inbox.take(stop.signal);
  await settle();
  stop.abort();
  assert.equal(await waiting, undefined);
  inbox.push(message("a"));
  assert.equal(await inbox.take(stop.signal), undefined);
  assert.equal(names(await inbox.take(never)), "a");
});

Deno.test("a consumer that is woken and aborted at once wakes another one", async () => {
  const inbox = new Inbox();
  const stop = new AbortController();
  const [first, second] = [inbox.take(stop.signal), inbox.take(never)];
  await settle();
  inbox.push(message("a"));
  stop.abort();
  assert.equal(await first, undefined);
  assert.equal(names(await second), "a");
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
    const batch = inbox.take(signal);
    await settle();
    assert.equal(listeners, 1);
    inbox.push(message("a"));
    await batch;
    assert.equal(listeners, 0);
  }
});

Deno.test("a batch that is given back is taken next, without its finished deliveries", async () => {
  const inbox = new Inbox();
  for (const name of "abc") inbox.push(message(name));
  const batch = await inbox.take(never) as Batch;
  inbox.push(message("d"));
  batch.unfinished[1]?.finish();
  assert.deepEqual([inbox.beingStored, inbox.inMemory], [[batch], 3]);
  inbox.giveBack(batch);
  assert.deepEqual([inbox.beingStored, inbox.taken, inbox.inMemory], [[], [batch], 3]);
  const again = await inbox.take(never) as Batch;
  assert.equal(names(again), "ac");
  assert.equal(again.takenMs, batch.takenMs);
  finishAll(inbox, again);
  assert.deepEqual([inbox.taken, inbox.inMemory], [[], 1]);
  assert.equal(names(await inbox.take(never)), "d");
});

Deno.test("a waiting consumer gets a batch that another one gave back", async () => {
  const inbox = new Inbox();
  inbox.push(message("a"));
  const batch = await inbox.take(never) as Batch;
  const other = inbox.take(never);
  await settle();
  inbox.giveBack(batch);
  assert.equal(await other, batch);
});

Deno.test("100,000 deliveries of QoS 0 may wait, and any number of QoS 1 and 2", async () => {
  const inbox = new Inbox();
  const push = (qos: 0 | 1 | 2): boolean => inbox.push(message("m", { qos }));
  for (let count = 0; count < MAX_QOS_0; count++) assert.ok(push(0));
  assert.equal(push(0), false);
  assert.ok(push(1));
  assert.ok(push(2));
  assert.equal(inbox.length, MAX_QOS_0 + 2);
  await inbox.take(never);
  for (let count = 0; count < MAX_BATCH_ROWS; count++) assert.ok(push(0));
  assert.equal(push(0), false);
});

Deno.test("a batch that took too long is given back in halves, from the spool as well", async () => {
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  const inbox = new Inbox(spool);
  spool.append(messages(5));
  const batch = await inbox.take(never) as Batch;
  batch.unfinished[0]?.finish();
  inbox.giveBack(batch, { tookTooLong: true });
  const halves = [await inbox.take(never), await inbox.take(never)] as [Batch, Batch];
  const topics = halves.map(({ unfinished }) => unfinished.map(({ topic }) => topic));
  assert.deepEqual(topics, [["1", "2"], ["3", "4"]]);
  for (const half of halves) {
    assert.ok(half.spooled);
    finishAll(inbox, half);
  }
  spool.deleteObsolete();
  assert.deepEqual([spool.count, temporary.topics()], [0, []]);
  inbox.push(message("single"));
  const single = await inbox.take(never) as Batch;
  inbox.giveBack(single, { tookTooLong: true });
  assert.equal(await inbox.take(never), single);
});

Deno.test("QoS 0 deliveries of up to 64 MiB may wait", async () => {
  const inbox = new Inbox();
  const payload = Buffer.alloc(2 ** 20);
  const push = (qos: 0 | 1): boolean => inbox.push(new Delivery("m", payload, { qos }));
  for (let count = 0; count < 64; count++) assert.ok(push(0));
  assert.equal(push(0), false);
  assert.ok(push(1));
  await inbox.take(never);
  assert.ok(push(0));
});

Deno.test("batches that are stored within a second are counted", async () => {
  using time = new FakeTime();
  const inbox = new Inbox();
  for (const durationMs of [0, 100, 60_000]) {
    inbox.push(message("a"));
    const batch = await inbox.take(never) as Batch;
    await time.pass(durationMs);
    finishAll(inbox, batch);
  }
  assert.equal(inbox.promptCount, 2);
});

Deno.test("a closed inbox gives the deliveries in memory, then ends the wait", async () => {
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  const inbox = new Inbox(spool);
  const waiting = [inbox.take(never), inbox.take(never)];
  await settle();
  inbox.close();
  assert.deepEqual(await Promise.all(waiting), [undefined, undefined]);
  inbox.push(message("a"));
  spool.append([message("s")]);
  assert.equal(names(await inbox.take(never)), "a");
  assert.equal(await inbox.take(never), undefined);
  assert.equal(spool.count, 1);
});

Deno.test("a batch given back after the close is taken again, unless it is spooled", async () => {
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  const inbox = new Inbox(spool);
  inbox.push(message("a"));
  const safe = await inbox.take(never) as Batch;
  inbox.push(message("b"));
  const unsafe = await inbox.take(never) as Batch;
  safe.copyTo(spool);
  inbox.close();
  inbox.giveBack(safe);
  inbox.giveBack(unsafe);
  assert.equal(inbox.inMemory, 1);
  assert.equal(await inbox.take(never), unsafe);
  assert.equal(await inbox.take(never), undefined);
});

Deno.test("batches come from memory and spool in turn", async () => {
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  spool.append(messages(2 * MAX_BATCH_ROWS));
  const inbox = new Inbox(spool);
  const sources: boolean[] = [];
  for (let round = 0; round < 5; round++) {
    inbox.push(message("m"));
    const batch = await inbox.take(never) as Batch;
    sources.push(batch.spooled);
    finishAll(inbox, batch);
  }
  assert.equal(sources.filter((spooled) => spooled).length, 2);
  assert.ok(sources.every((spooled, index) => index === 0 || spooled !== sources[index - 1]));
  inbox.dispose();
  assert.deepEqual([spool.count, temporary.topics()], [0, []]);
});

Deno.test("copying a taken batch to the spool makes it safe, and its end deletes the copy", async () => {
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  const inbox = new Inbox(spool);
  const deliveries = [..."abcd"].map((name) => message(name));
  for (const delivery of deliveries) inbox.push(delivery);
  const batch = await inbox.take(never) as Batch;
  deliveries[0]?.finish();
  batch.copyTo(spool);
  assert.deepEqual(temporary.topics(), ["b", "c", "d"]);
  assert.ok(deliveries.every(({ isSafe }) => isSafe));
  assert.deepEqual([names(batch), batch.spooled, inbox.inMemory], ["bcd", true, 0]);
  assert.equal(spool.hasWaiting, false);
  finishAll(inbox, batch);
  inbox.dispose();
  assert.deepEqual([spool.count, temporary.topics()], [0, []]);
});

Deno.test("a batch that the spool refuses is unchanged", async () => {
  using temporary = new TemporarySpool();
  const database = temporary.open();
  const spool = new Spool(database);
  const inbox = new Inbox(spool);
  inbox.push(message("a"));
  const batch = await inbox.take(never) as Batch;
  refuseWrites(database, true);
  assert.throws(() => batch.copyTo(spool));
  assert.deepEqual([batch.spooled, batch.unfinished[0]?.isSafe, inbox.inMemory], [
    false,
    false,
    1,
  ]);
});

Deno.test("the rest of a half stored batch is found at the next start", async () => {
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  spool.append([..."abcd"].map((name) => message(name)));
  const inbox = new Inbox(spool);
  const batch = await inbox.take(never) as Batch;
  for (const delivery of batch.unfinished.slice(1, 3)) delivery.finish();
  inbox.giveBack(batch);
  inbox.close();
  inbox.dispose();
  assert.equal(spool.count, 2);
  const next = new Inbox(new Spool(temporary.open()));
  assert.equal(names(await next.take(never)), "ad");
});

Deno.test("the counts add up while a batch from the spool is half stored and given back", async () => {
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  spool.append([..."abcd"].map((name) => message(name)));
  const statistics = new Statistics(spool);
  const inbox = new Inbox(spool);
  const batch = await inbox.take(never) as Batch;
  for (const delivery of batch.unfinished.slice(1, 3)) {
    delivery.finish();
    statistics.outcomes.stored++;
  }
  inbox.giveBack(batch);
  assert.deepEqual([statistics.waiting, statistics.spooled], [0, 2]);
  assert.equal(names(await inbox.take(never)), "ad");
});

/** A logger without broker and database: new messages, consumers and the overflow. */
class Course {
  readonly received: Delivery[] = [];
  readonly #temporary: TemporarySpool;
  readonly #finished = new Map<string, number>();
  #taken: Batch[] = [];
  #isUnavailable = false;
  readonly spool: Spool;
  readonly statistics: Statistics;
  readonly #inbox: Inbox;
  readonly #overflow: Overflow;
  readonly #refuse: (refuse: boolean) => void;

  constructor(temporary: TemporarySpool) {
    this.#temporary = temporary;
    const database = temporary.open();
    this.#refuse = (refuse) => refuseWrites(database, refuse);
    this.spool = new Spool(database);
    this.statistics = new Statistics(this.spool);
    const inbox = this.#inbox = new Inbox(this.spool);
    const options = { inbox, spool: this.spool, isDatabaseUnavailable: () => this.#isUnavailable };
    this.#overflow = new Overflow(options);
  }

  push(count: number): void {
    for (let index = 0; index < count; index++) {
      const name = `${this.received.length}`;
      const delivery = message(name, { qos: index % 2 === 0 ? 1 : 2 });
      // A message that is acknowledged must be on disk as another program sees it.
      delivery.onSafe = () => {
        const onDisk = this.#temporary.query("SELECT id FROM message WHERE topic = ?", name);
        assert.ok(delivery.isDone || onDisk.length === 1, `${name} was acknowledged`);
      };
      this.received.push(delivery);
      this.statistics.received++;
      this.#inbox.push(delivery);
    }
  }

  async take(): Promise<boolean> {
    const batch = await takeNow(this.#inbox);
    if (batch !== undefined) this.#taken.push(batch);
    return batch !== undefined;
  }

  /** Finishes some or all deliveries of a batch; with `fails`, the connection fails then. */
  store(index: number, { every, fails }: { every: number; fails: boolean }): void {
    const [batch] = this.#taken.splice(index % Math.max(1, this.#taken.length), 1);
    if (batch === undefined) return;
    for (const [index, delivery] of batch.unfinished.entries()) {
      if (fails && index % every !== 0) continue;
      delivery.finish();
      this.#finished.set(delivery.topic, (this.#finished.get(delivery.topic) ?? 0) + 1);
      this.statistics.outcomes.stored++;
    }
    if (fails) this.#inbox.giveBack(batch);
    else this.#inbox.finish(batch);
  }

  setDatabase(isUnavailable: boolean): void {
    this.#isUnavailable = isUnavailable;
  }

  setDisk(refuses: boolean): void {
    this.#refuse(refuses);
  }

  tick(): void {
    this.#overflow.tick();
  }

  get held(): number {
    return this.#taken.length;
  }

  /** Each message has exactly one outcome, or is in the spool or in memory. */
  end(): void {
    while (this.held > 0) this.store(0, { every: 3, fails: true });
    this.#inbox.close();
    this.setDisk(false);
    this.#inbox.dispose();
    for (const [name, count] of this.#finished) assert.equal(count, 1, `${name} was stored twice`);
    assert.equal(this.statistics.waiting, this.#inbox.inMemory);
    const onDisk = this.#temporary.topics();
    assert.equal(onDisk.length, this.spool.count);
    assert.equal(new Set(onDisk).size, onDisk.length);
    const unsettled = this.received.filter(({ isSafe }) => !isSafe).map(({ topic }) => topic);
    assert.equal(unsettled.length, this.#inbox.inMemory);
    const found = [...this.#finished.keys(), ...onDisk, ...unsettled].map(Number);
    assert.deepEqual(
      found.toSorted((one, other) => one - other),
      this.received.map((_, index) => index),
    );
  }
}

Deno.test("in any order of events, each message ends once, and is on disk or stored when it is safe", async () => {
  captureLog();
  const event = fc.oneof(
    { weight: 5, arbitrary: fc.record({ push: fc.integer({ min: 1, max: 20 }) }) },
    { weight: 6, arbitrary: fc.constant({ take: true }) },
    {
      weight: 6,
      arbitrary: fc.record({
        store: fc.nat({ max: 5 }),
        every: fc.integer({ min: 1, max: 3 }),
        fails: fc.boolean(),
      }),
    },
    { weight: 2, arbitrary: fc.record({ isUnavailable: fc.boolean() }) },
    { weight: 1, arbitrary: fc.record({ refuses: fc.boolean() }) },
    { weight: 8, arbitrary: fc.record({ pass: fc.constantFrom(5, 60, 300, 1_100) }) },
  );
  const events = fc.array(event, { maxLength: 80, size: "max" });
  await fc.assert(
    fc.asyncProperty(events, fc.boolean(), async (events, drains) => {
      using time = new FakeTime();
      using temporary = new TemporarySpool();
      const course = new Course(temporary);
      for (const event of events) {
        if ("push" in event) course.push(event.push);
        else if ("take" in event) await course.take();
        else if ("store" in event) course.store(event.store, event);
        else if ("isUnavailable" in event) course.setDatabase(event.isUnavailable);
        else if ("refuses" in event) course.setDisk(event.refuses);
        else {
          await time.pass(event.pass);
          course.tick();
        }
      }
      if (drains) {
        course.setDatabase(false);
        while (course.held > 0) course.store(0, { every: 1, fails: false });
        while (await course.take()) course.store(0, { every: 1, fails: false });
        assert.deepEqual([course.spool.count, course.statistics.waiting], [0, 0]);
        assert.equal(course.statistics.outcomes.stored, course.received.length);
      }
      course.end();
    }),
    { numRuns: 60 },
  );
});
