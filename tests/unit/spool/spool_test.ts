/** The spool: it holds what was appended and not removed, oldest first, across failures. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { Delivery } from "../../../lib/message/delivery.ts";
import { Spool } from "../../../lib/spool/spool.ts";
import { RejectedMessages } from "../../../lib/spool/rejected_messages.ts";
import { SpoolError } from "../../../lib/spool/errors.ts";
import { captureLog } from "../../support/captured_log.ts";
import { FakeTime } from "../../fakes/fake_time.ts";
import {
  damageUnder,
  MEBIBYTE,
  message,
  messages,
  refuseWrites,
  TemporarySpool,
} from "../../support/temporary_spool.ts";

/** Takes messages and returns their topics. */
function take(spool: Spool, max: number): string[] {
  return spool.take(max)?.deliveries.map(({ topic }) => topic) ?? [];
}

Deno.test("messages are on disk when append returns, and are taken oldest first", () => {
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  assert.deepEqual([spool.count, spool.hasWaiting, spool.take(5)], [0, false, undefined]);
  spool.append(["a", "b", "c"].map((name) => message(name)));
  assert.deepEqual(temporary.topics(), ["a", "b", "c"]);
  spool.append([message("d")]);
  assert.equal(spool.count, 4);
  assert.deepEqual(take(spool, 2), ["a", "b"]);
  assert.deepEqual(take(spool, 5), ["c", "d"]);
  assert.deepEqual([spool.count, spool.hasWaiting], [4, false]);
  assert.deepEqual(take(spool, 5), []);
  assert.deepEqual(temporary.topics(), ["a", "b", "c", "d"]);
});

Deno.test("removed messages are deleted, and the next start finds the others", () => {
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  spool.append(messages(10));
  const { ids = [] } = spool.take(6) ?? {};
  spool.remove(ids.filter((_, index) => index % 2 === 0));
  assert.deepEqual([spool.count, spool.removedCount], [7, 3]);
  spool.deleteObsolete();
  const next = new Spool(temporary.open());
  assert.deepEqual([next.count, next.removedCount], [7, 0]);
  assert.deepEqual(take(next, 100), ["1", "3", "5", "6", "7", "8", "9"]);
});

Deno.test("messages appended as taken are not taken again", () => {
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  const ids = spool.append([message("mine")], { taken: true });
  spool.append([message("anyone's")]);
  assert.equal(spool.count, 2);
  assert.deepEqual(take(spool, 5), ["anyone's"]);
  spool.remove(ids);
  spool.deleteObsolete();
  assert.deepEqual(temporary.topics(), ["anyone's"]);
});

Deno.test("an emptied spool shrinks to a small file", () => {
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  const emptyBytes = Deno.statSync(temporary.path).size;
  spool.append(messages(500, { bytes: 5_000 }));
  assert.ok(spool.usedBytes > 2 * MEBIBYTE);
  assert.ok(Deno.statSync(temporary.path).size > 2 * MEBIBYTE);
  spool.remove(spool.take(500)?.ids ?? []);
  assert.equal(spool.usedBytes, emptyBytes);
  assert.equal(Deno.statSync(temporary.path).size, emptyBytes);
});

Deno.test("a full spool refuses a whole batch, and accepts it when there is space", () => {
  using temporary = new TemporarySpool({ maxBytes: MEBIBYTE });
  const spool = new Spool(temporary.open());
  const batch = messages(10, { bytes: 5_000 });
  let count = 0;
  assert.throws(() => {
    for (; count < MEBIBYTE; count += 10) spool.append(batch);
  }, SpoolError);
  assert.ok(count > 50, `${count} messages were taken`);
  assert.equal(spool.count, count);
  assert.equal(temporary.topics().length, count);
  assert.ok(spool.usedBytes <= MEBIBYTE);
  spool.remove(spool.take(30)?.ids ?? []);
  spool.deleteObsolete();
  assert.equal(temporary.topics().length, count - 30);
  spool.append(batch);
  assert.equal(spool.count, count - 20);
});

Deno.test("a full spool has space left for rejected messages", () => {
  using temporary = new TemporarySpool({ maxBytes: 4 * MEBIBYTE });
  const spoolFile = temporary.open();
  const spool = new Spool(spoolFile);
  assert.throws(() => {
    for (let count = 0; count < MEBIBYTE; count++) spool.append(messages(1, { bytes: 200 }));
  }, /^SpoolError: it has reached the size that SPOOL_MAX_BYTES allows$/);
  const record = new RejectedMessages(spoolFile);
  const rejections = messages(1_000, { bytes: 200 }).map((delivery) => ({
    ...{ topic: delivery.topic, payload: delivery.payload, reason: "no reading" },
  }));
  for (let count = 0; count < 10; count++) record.add(rejections);
  assert.ok(record.select({ limit: 10_000 }).length > 500);
});

Deno.test("take is limited to some megabytes, but returns at least one message", () => {
  using temporary = new TemporarySpool({ maxBytes: 100 * MEBIBYTE });
  const spool = new Spool(temporary.open());
  spool.append(messages(7, { bytes: 3 * MEBIBYTE }));
  spool.append(messages(1, { bytes: 12 * MEBIBYTE }));
  spool.append(messages(5));
  const counts = [];
  for (let taken; (taken = spool.take(100)) !== undefined;) counts.push(taken.ids.length);
  assert.deepEqual(counts, [3, 3, 2, 5]);
  assert.equal(spool.hasWaiting, false);
});

Deno.test("removed messages that cannot be deleted are not counted, and are deleted later", () => {
  captureLog();
  using temporary = new TemporarySpool();
  const spoolFile = temporary.open();
  const spool = new Spool(spoolFile);
  spool.append(messages(3));
  refuseWrites(spoolFile, true);
  spool.remove(spool.take(2)?.ids ?? []);
  spool.deleteObsolete();
  assert.deepEqual([spool.count, spool.removedCount, temporary.topics().length], [1, 2, 3]);
  refuseWrites(spoolFile, false);
  spool.deleteObsolete();
  assert.deepEqual([spool.count, temporary.topics()], [1, ["2"]]);
});

Deno.test("rows are deleted in batches, within about a second", async () => {
  using time = new FakeTime();
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  spool.append(messages(10));
  const ids = spool.take(9)?.ids ?? [];
  // The first deletion is due immediately.
  spool.remove(ids.slice(0, 1));
  assert.equal(temporary.topics().length, 9);
  for (const id of ids.slice(1)) spool.remove([id]);
  assert.deepEqual([spool.count, temporary.topics().length], [1, 9]);
  await time.pass(5_000);
  spool.tidy();
  assert.equal(temporary.topics().length, 1);
  spool.remove(spool.take(1)?.ids ?? []);
  assert.equal(temporary.topics().length, 0);
});

Deno.test("messages are read back bit for bit", () => {
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  const part = fc.record({
    topic: fc.string({ unit: "grapheme", maxLength: 50 }),
    payload: fc.uint8Array({ maxLength: 10_000 }),
    offset: fc.nat({ max: 10 }),
  });
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 20 }), (parts) => {
      const deliveries = parts.map(({ topic, payload, offset }) =>
        // A payload is a view into the buffer of a whole TCP segment.
        new Delivery(topic, Buffer.from([...Buffer.alloc(offset), ...payload]).subarray(offset), {
          qos: 2,
        })
      );
      spool.append(deliveries);
      const { deliveries: taken = [], ids = [] } = spool.take(deliveries.length) ?? {};
      assert.deepEqual(
        taken.map(({ topic, payload }) => [topic, payload.toString("hex")]),
        deliveries.map(({ topic, payload }) => [topic, payload.toString("hex")]),
      );
      assert.ok(taken.every(({ state }) => state === "in flight"));
      spool.remove(ids);
    }),
    { numRuns: 30 },
  );
});

/** A message in the model. */
interface Entry {
  readonly name: string;
  state: "waiting" | "taken" | "removed";
  id?: number;
}

/** The model: an array with the expected behavior of the spool. */
class Model {
  entries: Entry[] = [];
  refuses = false;

  in(...states: Entry["state"][]): Entry[] {
    return this.entries.filter(({ state }) => states.includes(state));
  }

  names(...states: Entry["state"][]): string[] {
    return this.in(...states).map(({ name }) => name);
  }

  /** After a crash, removed messages may still be on disk and are found again. */
  restart(onDisk: readonly string[]): void {
    this.refuses = false;
    this.entries = this.entries.filter(({ name }) => onDisk.includes(name));
    for (const entry of this.entries) entry.state = "waiting";
  }
}

Deno.test("a spool behaves like an array for any sequence of events", () => {
  captureLog();
  const event = fc.oneof(
    { weight: 4, arbitrary: fc.record({ append: fc.nat({ max: 8 }) }) },
    { weight: 2, arbitrary: fc.record({ appendTaken: fc.nat({ max: 4 }) }) },
    { weight: 4, arbitrary: fc.record({ take: fc.integer({ min: 1, max: 10 }) }) },
    {
      weight: 5,
      arbitrary: fc.record({ remove: fc.array(fc.nat({ max: 30 }), { maxLength: 10 }) }),
    },
    { weight: 1, arbitrary: fc.constant({ restart: true }) },
    { weight: 1, arbitrary: fc.record({ refuse: fc.boolean() }) },
    { weight: 1, arbitrary: fc.constant({ delete: true }) },
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 40, size: "max" }), (events) => {
      using temporary = new TemporarySpool();
      let spoolFile = temporary.open();
      let spool = new Spool(spoolFile);
      const model = new Model();
      let next = 0;
      const append = (count: number, taken: boolean): void => {
        const names = Array.from({ length: count }, () => `${next++}`);
        try {
          const ids = spool.append(names.map((name) => message(name)), { taken });
          assert.equal(ids.length, count);
          for (const [index, name] of names.entries()) {
            const state = taken ? "taken" : "waiting";
            model.entries.push({ name, state, ...(taken && { id: ids[index] as number }) });
          }
          assert.ok(!model.refuses || count === 0);
        } catch (error) {
          assert.ok(error instanceof SpoolError && model.refuses, String(error));
        }
      };
      for (const event of events) {
        if ("append" in event) append(event.append, false);
        else if ("appendTaken" in event) append(event.appendTaken, true);
        else if ("take" in event) {
          const expected = model.in("waiting").slice(0, event.take);
          const { deliveries = [], ids = [] } = spool.take(event.take) ?? {};
          // It may return fewer messages, but at least one if one waits.
          assert.ok(deliveries.length > 0 || expected.length === 0);
          for (const [index, { topic }] of deliveries.entries()) {
            const entry = expected[index] as Entry;
            assert.equal(topic, entry.name);
            Object.assign(entry, { state: "taken", id: ids[index] });
          }
        } else if ("remove" in event) {
          const taken = model.in("taken");
          const removed = new Set(event.remove.flatMap((index) => taken[index] ?? []));
          spool.remove([...removed].map(({ id }) => id as number));
          for (const entry of removed) entry.state = "removed";
        } else if ("restart" in event) {
          model.restart(temporary.topics());
          spool = new Spool(spoolFile = temporary.open());
        } else if ("refuse" in event) {
          refuseWrites(spoolFile, model.refuses = event.refuse);
        } else {
          spool.deleteObsolete();
          if (!model.refuses) {
            assert.deepEqual(temporary.topics(), model.names("waiting", "taken"));
          }
        }
        const count = model.in("waiting", "taken").length;
        assert.equal(spool.count, count);
        assert.equal(spool.hasWaiting, model.in("waiting").length > 0);
        const onDisk = temporary.topics();
        const all = model.names("waiting", "taken", "removed");
        assert.deepEqual(onDisk, all.filter((name) => onDisk.includes(name)));
        const needed = model.names("waiting", "taken");
        assert.deepEqual(needed, needed.filter((name) => onDisk.includes(name)));
      }
    }),
    { numRuns: 30 },
  );
});

Deno.test("a spool file deleted while in use is restored", () => {
  const lines = captureLog();
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  spool.append(messages(3));
  const taken = spool.take(1);
  Deno.removeSync(temporary.path);
  assert.throws(() => spool.append([message("a")]), SpoolError);
  spool.append([message("b")]);
  assert.deepEqual(temporary.topics(), ["0", "1", "2", "b"]);
  spool.remove(taken?.ids ?? []);
  spool.deleteObsolete();
  assert.deepEqual([spool.count, temporary.topics()], [3, ["1", "2", "b"]]);
  assert.match(
    lines.join("\n"),
    /ERROR .* was deleted while the logger was using it\..* with 3 messages/,
  );
});

Deno.test("a large emptied spool shrinks in steps", () => {
  using temporary = new TemporarySpool({ maxBytes: 100 * MEBIBYTE });
  const spool = new Spool(temporary.open());
  for (let count = 0; count < 10; count++) spool.append(messages(200, { bytes: 15_000 }));
  const sizes = [Deno.statSync(temporary.path).size];
  spool.remove(spool.take(10_000)?.ids ?? []);
  for (let taken; (taken = spool.take(10_000)) !== undefined;) spool.remove(taken.ids);
  for (let step = 0; step < 10; step++) {
    sizes.push(Deno.statSync(temporary.path).size);
    spool.tidy();
  }
  assert.ok((sizes[0] ?? 0) > 25 * MEBIBYTE && (sizes[1] ?? 0) > MEBIBYTE, sizes.join(" "));
  assert.ok((sizes.at(-1) ?? Infinity) < MEBIBYTE, sizes.join(" "));
});

Deno.test("a spool damaged while in use continues with its readable messages", () => {
  const lines = captureLog({ level: "ERROR" });
  using temporary = new TemporarySpool();
  const spool = new Spool(temporary.open());
  spool.append(messages(100, { bytes: 500 }), { taken: true });
  spool.append(Array.from({ length: 900 }, (_, index) => message(`w${index}w`, { bytes: 500 })));
  damageUnder(temporary, "w500w");
  let seen: string[] = [];
  for (let attempt = 0; attempt < 3 && spool.hasWaiting; attempt++) {
    try {
      seen = [...seen, ...take(spool, 1_000)];
    } catch (error) {
      assert.ok(error instanceof SpoolError, String(error));
    }
  }
  assert.equal(spool.hasWaiting, false);
  const lost = 900 - seen.length;
  assert.ok(lost > 0 && lost <= 16, `${lost} messages are lost`);
  assert.equal(new Set(seen).size, seen.length);
  assert.equal(seen.includes("w500w"), false);
  assert.deepEqual([spool.unreadable, spool.count], [lost, 1_000 - lost]);
  assert.equal(temporary.damagedFiles().length, 1);
  assert.ok(lines.some((line) => line.includes(`Could not read ${lost} spooled message`)));
  spool.append([message("new")]);
  assert.deepEqual(take(spool, 10), ["new"]);
});
