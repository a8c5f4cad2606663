/** The overflow: when waiting messages are moved to the spool, and when that ends. */
import assert from "node:assert/strict";
import { type Delivery, RECEIVE_MAXIMUM } from "../../../lib/message/delivery.ts";
import type { Batch } from "../../../lib/pipeline/batch.ts";
import { Inbox } from "../../../lib/pipeline/inbox.ts";
import { Overflow } from "../../../lib/pipeline/overflow.ts";
import { Spool } from "../../../lib/spool/spool.ts";
import { captureLog, withoutTime } from "../../support/captured_log.ts";
import { FakeTime } from "../../fakes/fake_time.ts";
import { message, messages, refuseWrites, TemporarySpool } from "../../support/temporary_spool.ts";

const never = new AbortController().signal;

/** An inbox whose overflow runs in fake time. */
class Course implements Disposable {
  readonly #time = new FakeTime();
  readonly #temporary = new TemporarySpool();
  readonly #database = this.#temporary.open();
  readonly #stop = new AbortController();
  readonly spool = new Spool(this.#database);
  readonly inbox = new Inbox(this.spool);
  isUnavailable = false;
  readonly running: Promise<void>;

  constructor() {
    const options = {
      inbox: this.inbox,
      spool: this.spool,
      isDatabaseUnavailable: () => this.isUnavailable,
    };
    this.running = new Overflow(options).run(this.#stop.signal);
  }

  push(...deliveries: Delivery[]): void {
    for (const delivery of deliveries) this.inbox.push(delivery);
  }

  async take(): Promise<Batch> {
    return await this.inbox.take(never) as Batch;
  }

  finish(batch: Batch): void {
    for (const delivery of batch.unfinished) delivery.finish();
    this.inbox.finish(batch);
  }

  /** Takes a batch and stores it at once. */
  async storeOne(): Promise<void> {
    this.finish(await this.take());
  }

  async pass(durationMs: number): Promise<void> {
    await this.#time.pass(durationMs);
  }

  refuse(refuse: boolean): void {
    refuseWrites(this.#database, refuse);
  }

  onDisk(): string[] {
    return this.#temporary.topics();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.running;
    assert.equal(this.#time.pending, 0);
  }

  [Symbol.dispose](): void {
    this.#temporary[Symbol.dispose]();
    this.#time[Symbol.dispose]();
  }
}

Deno.test("while the database keeps up, nothing is written to disk", async () => {
  using course = new Course();
  for (let round = 0; round < 100; round++) {
    course.push(...messages(50));
    await course.pass(40);
    const batch = await course.take();
    await course.pass(60);
    course.finish(batch);
  }
  assert.deepEqual([course.spool.removedCount, course.spool.count], [0, 0]);
  await course.stop();
});

Deno.test("messages that have waited for a second are moved, and become safe", async () => {
  using course = new Course();
  await course.pass(5_000);
  const delivery = message("a");
  course.push(delivery);
  await course.pass(900);
  assert.deepEqual([course.inbox.length, delivery.isSafe, course.onDisk()], [1, false, []]);
  await course.pass(300);
  assert.deepEqual([course.inbox.length, delivery.isSafe, course.onDisk()], [0, true, ["a"]]);
  assert.equal(delivery.isDone, false);
  await course.stop();
});

Deno.test("while the database is unavailable, all messages are moved at once, until a batch is stored", async () => {
  using course = new Course();
  course.isUnavailable = true;
  course.push(...messages(5_000));
  await course.pass(60);
  assert.equal(course.onDisk().length, 5_000);
  course.push(message("a"));
  await course.pass(10);
  assert.equal(course.onDisk().length, 5_001);
  course.isUnavailable = false;
  course.push(message("b"));
  await course.pass(10);
  assert.equal(course.onDisk().length, 5_002);
  await course.storeOne();
  await course.pass(10);
  course.push(message("c"));
  await course.pass(100);
  assert.equal(course.inbox.length, 1);
  await course.stop();
});

Deno.test("a batch taken a second ago is made safe, and its consumer continues with it", async () => {
  using course = new Course();
  const deliveries = messages(3);
  course.push(...deliveries);
  const batch = await course.take();
  await course.pass(950);
  assert.deepEqual(course.onDisk(), []);
  deliveries[1]?.finish();
  await course.pass(100);
  assert.deepEqual(course.onDisk(), ["0", "2"]);
  assert.ok(deliveries.every(({ isSafe }) => isSafe));
  assert.equal(course.inbox.inMemory, 0);
  await course.pass(10_000);
  assert.equal(course.spool.count, 2);
  course.finish(batch);
  await course.pass(5_000);
  assert.deepEqual([course.spool.count, course.onDisk()], [0, []]);
  await course.stop();
});

Deno.test("a batch that was given back is made safe, too", async () => {
  using course = new Course();
  const delivery = message("a");
  course.push(delivery);
  course.inbox.giveBack(await course.take());
  await course.pass(1_100);
  assert.deepEqual([delivery.isSafe, course.onDisk()], [true, ["a"]]);
  await course.storeOne();
  await course.pass(5_000);
  assert.deepEqual(course.onDisk(), []);
  await course.stop();
});

Deno.test("if no batch is stored, messages are moved before the in-flight window is full", async () => {
  using course = new Course();
  course.push(message("first"));
  const hanging = await course.take();
  await course.pass(100);
  course.push(...messages(RECEIVE_MAXIMUM / 2));
  await course.pass(200);
  assert.equal(course.spool.count, 0);
  await course.pass(500);
  assert.equal(course.inbox.length, 0);
  assert.equal(course.spool.count, RECEIVE_MAXIMUM / 2);
  course.finish(hanging);
  await course.stop();
});

Deno.test("a full in-flight window is not moved while batches are stored", async () => {
  using course = new Course();
  course.push(...messages(RECEIVE_MAXIMUM));
  for (let round = 0; round < 20; round++) {
    const batch = await course.take();
    course.push(...messages(batch.unfinished.length));
    await course.pass(100);
    course.finish(batch);
  }
  assert.deepEqual([course.spool.count, course.spool.removedCount], [0, 0]);
  await course.stop();
});

Deno.test("moved messages wake a waiting consumer", async () => {
  using course = new Course();
  const waiting = course.inbox.take(never);
  await course.pass(10);
  course.spool.append([message("a")]);
  await course.pass(100);
  assert.deepEqual((await waiting)?.unfinished.map(({ topic }) => topic), ["a"]);
  await course.stop();
});

Deno.test("a refusing spool is logged once and retried, and no message becomes safe", async () => {
  using course = new Course();
  const lines = captureLog();
  course.isUnavailable = true;
  course.refuse(true);
  const [waiting, inHand] = [message("a"), message("b")];
  course.push(inHand);
  const batch = await course.take();
  course.push(waiting);
  await course.pass(9_500);
  assert.deepEqual([waiting.isSafe, inHand.isSafe, course.inbox.inMemory], [false, false, 2]);
  course.refuse(false);
  await course.pass(1_500);
  assert.deepEqual([waiting.isSafe, inHand.isSafe, course.inbox.inMemory], [true, true, 0]);
  const [first = "", second = "", ...more] = lines.map(withoutTime);
  assert.ok(first.startsWith("ERROR    The spool is not accepting messages: "), first);
  assert.match(
    second.slice("INFO     ".length),
    /^The spool is accepting messages again after \d+\.\d s\.$/,
  );
  assert.deepEqual(more, []);
  course.finish(batch);
  await course.stop();
});

Deno.test("a spool that refuses repeatedly is logged once, until it has accepted for a minute", async () => {
  using course = new Course();
  const lines = captureLog();
  course.isUnavailable = true;
  const spoolFor = async (durationMs: number): Promise<void> => {
    for (let passed = 0; passed < durationMs; passed += 500) {
      course.push(message("a"));
      await course.pass(500);
    }
  };
  for (let round = 0; round < 10; round++) {
    course.refuse(true);
    await spoolFor(3_000);
    course.refuse(false);
    await spoolFor(3_000);
  }
  const told = (): string[] => lines.map((line) => withoutTime(line).slice(0, 35));
  const refuses = "ERROR    The spool is not accepting";
  const accepts = "INFO     The spool is accepting mes";
  assert.deepEqual(
    told().filter((line) => line.includes("The spool is")),
    [refuses, accepts, refuses],
  );
  await spoolFor(60_000);
  assert.deepEqual(
    told().filter((line) => line.includes("The spool is")),
    [refuses, accepts, refuses, accepts],
  );
  await course.stop();
});

Deno.test("messages of QoS 0 are moved, too, which makes room for more", async () => {
  using course = new Course();
  course.isUnavailable = true;
  const push = (): boolean => course.inbox.push(message("m", { qos: 0 }));
  for (let count = 0; count < 100_000; count++) assert.ok(push());
  assert.equal(push(), false);
  await course.pass(60);
  assert.equal(course.spool.count, 100_000);
  assert.equal(push(), true);
  await course.stop();
});

Deno.test("an abort ends the overflow, during its sleep or not", async () => {
  using course = new Course();
  course.push(message("a"));
  await course.stop();
  await course.pass(10_000);
  assert.equal(course.inbox.length, 1);
});
