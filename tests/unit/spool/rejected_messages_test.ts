/** Rejected messages: durable when added, and limited by number, size and age. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { MAX_PAYLOAD_BYTES } from "../../../lib/message/reading.ts";
import { RejectedMessages, type Rejection } from "../../../lib/spool/rejected_messages.ts";
import { SpoolError } from "../../../lib/spool/errors.ts";
import { FakeTime } from "../../fakes/fake_time.ts";
import { MEBIBYTE, refuseWrites, TemporarySpool } from "../../support/temporary_spool.ts";

const DAY_MS = 24 * 3600 * 1000;

function rejection(topic: string, payload: Buffer | string = "payload"): Rejection {
  return { topic, reason: `${topic} is bad`, payload: Buffer.from(payload) };
}

function topics(record: RejectedMessages): string[] {
  return record.select({ limit: 1_000_000 }).map(({ topic }) => topic);
}

Deno.test("rejected messages are on disk unchanged when add returns", () => {
  using temporary = new TemporarySpool();
  const record = new RejectedMessages(temporary.open());
  const before = Date.now();
  const rejections = [rejection("a", Buffer.from([0, 0xff, 0x0a])), rejection("ä\u{1F419}", "")];
  record.add(rejections);
  assert.equal(temporary.query("SELECT * FROM rejected").length, 2);
  const found = new RejectedMessages(temporary.open()).select({ limit: 10 });
  assert.deepEqual(
    found.map(({ topic, reason, payload }) => ({ topic, reason, payload })),
    rejections,
  );
  for (const { timeMs } of found) assert.ok(timeMs >= before && timeMs <= Date.now());
});

Deno.test("an oversized payload is kept up to the limit", () => {
  using temporary = new TemporarySpool();
  const record = new RejectedMessages(temporary.open());
  record.add([rejection("long", Buffer.alloc(10 * MAX_PAYLOAD_BYTES, "x"))]);
  assert.equal(record.select({ limit: 1 })[0]?.payload.length, MAX_PAYLOAD_BYTES);
});

Deno.test("messages are selected by id, time and number, and deleted by id", () => {
  using temporary = new TemporarySpool();
  const spoolFile = temporary.open();
  const record = new RejectedMessages(spoolFile);
  for (const topic of "abcde") record.add([rejection(topic)]);
  spoolFile.run("UPDATE rejected SET time_ms = 1000 * id");
  const select = (selection: { afterId?: number; sinceMs?: number; limit?: number }): string =>
    record.select({ limit: 100, ...selection }).map(({ topic }) => topic).join("");
  assert.equal(select({}), "abcde");
  assert.equal(select({ limit: 2 }), "ab");
  assert.equal(select({ afterId: 2 }), "cde");
  assert.equal(select({ sinceMs: 3_000 }), "cde");
  assert.equal(select({ sinceMs: 3_001, limit: 1 }), "d");
  assert.equal(select({ afterId: 4, sinceMs: 1 }), "e");
  record.delete([2, 4, 99]);
  assert.equal(select({}), "ace");
});

Deno.test("add throws if nothing can be written", () => {
  using temporary = new TemporarySpool();
  const spoolFile = temporary.open();
  const record = new RejectedMessages(spoolFile);
  record.add([rejection("a")]);
  refuseWrites(spoolFile, true);
  assert.throws(() => record.add([rejection("b"), rejection("c")]), SpoolError);
  assert.throws(() => record.delete([1]), SpoolError);
  refuseWrites(spoolFile, false);
  assert.deepEqual(topics(record), ["a"]);
});

Deno.test("the oldest messages are deleted beyond a twentieth of the spool", () => {
  using temporary = new TemporarySpool({ maxBytes: 10 * MEBIBYTE });
  const spoolFile = temporary.open();
  const record = new RejectedMessages(spoolFile);
  let most = 0;
  for (let count = 0; count < 3_000; count++) {
    record.add([rejection(String(count), Buffer.alloc(1_000))]);
    if (count % 100 === 0) most = Math.max(most, topics(record).length);
  }
  const left = topics(record).map(Number);
  assert.ok(left.length > 350 && left.length < 700, `${left.length} messages are left`);
  assert.ok(most < 700, `${most} messages at one time`);
  assert.deepEqual(left, left.map((_, index) => 3_000 - left.length + index));
});

Deno.test("at most 100,000 messages are kept", () => {
  using temporary = new TemporarySpool({ maxBytes: 1_000 * MEBIBYTE });
  const spoolFile = temporary.open();
  spoolFile.run(
    `INSERT INTO rejected (time_ms, topic, reason, payload)
     WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 100007)
     SELECT ?, n, '', x'' FROM number`,
    Date.now(),
  );
  const record = new RejectedMessages(spoolFile);
  record.add([rejection("last")]);
  assert.equal(temporary.query("SELECT count(*) AS count FROM rejected")[0]?.["count"], 100_000);
  assert.equal(record.select({ limit: 1 })[0]?.topic, "9");
  assert.equal(record.select({ afterId: 100_007, limit: 1 })[0]?.topic, "last");
});

Deno.test("a message is deleted after 30 days if two checks an hour apart agree", async () => {
  using time = new FakeTime();
  using temporary = new TemporarySpool();
  const spoolFile = temporary.open();
  const record = new RejectedMessages(spoolFile);
  record.add([rejection("old"), rejection("younger")]);
  const age = (topic: string, days: number): void => {
    spoolFile.run(
      "UPDATE rejected SET time_ms = ? WHERE topic = ?",
      Date.now() - days * DAY_MS,
      topic,
    );
  };
  age("old", 31);
  age("younger", 29);
  await time.pass(3600 * 1000);
  record.prune();
  assert.deepEqual(topics(record), ["old", "younger"]);
  // The clock was wrong and has been corrected.
  age("old", 28);
  await time.pass(3600 * 1000);
  record.prune();
  assert.deepEqual(topics(record), ["old", "younger"]);
  age("old", 31);
  for (let check = 0; check < 2; check++) {
    await time.pass(3600 * 1000);
    record.prune();
  }
  assert.deepEqual(topics(record), ["younger"]);
});
