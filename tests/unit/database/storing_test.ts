/** Storing a batch with rows that the database rejects: the reported outcomes and the statements. */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { DatabaseConnection, InsertResult } from "../../../lib/database/connection.ts";
import { DatabaseError } from "../../../lib/database/errors.ts";
import type { Reading } from "../../../lib/message/reading.ts";
import { storeReadings } from "../../../lib/database/storing.ts";

/** A reading, identified by its sid. */
interface Item {
  readonly reading: Reading;
}

function makeItems(count: number): Item[] {
  return Array.from({ length: count }, (_, sid) => ({
    reading: { timeMicros: 0n, uuid: "0".repeat(32), sid, value: "1" } as unknown as Reading,
  }));
}

/** A connection that rejects some sids, and is lost after some statements. */
class FakeConnection {
  readonly #refused: ReadonlySet<number>;
  readonly #lastStatement: number;
  readonly stored: number[] = [];
  statements = 0;

  constructor(refused: Iterable<number>, lastStatement = Infinity) {
    this.#refused = new Set(refused);
    this.#lastStatement = lastStatement;
  }

  get connection(): DatabaseConnection {
    return this as unknown as DatabaseConnection;
  }

  /** Maximum rows per statement. */
  limit = Infinity;

  insert(readings: readonly Reading[]): Promise<InsertResult> {
    assert.notEqual(readings.length, 0);
    if (readings.length > this.limit) {
      return Promise.reject(new DatabaseError("limit", { cause: undefined, sqlState: "53400" }));
    }
    if (++this.statements > this.#lastStatement) {
      return Promise.reject(new DatabaseError("gone", { cause: undefined }));
    }
    const bad = readings.find(({ sid }) => this.#refused.has(sid));
    if (bad !== undefined) {
      const options = { cause: undefined, sqlState: "22003" };
      return Promise.reject(new DatabaseError(`row ${bad.sid} violates a constraint`, options));
    }
    this.stored.push(...readings.map(({ sid }) => sid));
    return Promise.resolve({
      stored: readings.length,
      duplicates: 0,
      unknown: [],
      disabled: [],
      durationMs: 1,
    });
  }
}

/** The reports of the listener, in their order. */
class Reports {
  readonly stored: number[] = [];
  readonly refused: number[] = [];
  readonly reasons: string[] = [];
  readonly failed: number[] = [];

  readonly onStored = (items: readonly Item[], result: InsertResult): void => {
    assert.equal(result.stored, items.length);
    this.stored.push(...items.map(({ reading }) => reading.sid));
  };

  readonly onRejected = ({ reading }: Item, reason: string): void => {
    this.refused.push(reading.sid);
    this.reasons.push(reason);
  };

  readonly onFailed = ({ reading }: Item, error: DatabaseError): void => {
    assert.ok(!error.isContent && !error.isOfServer);
    this.failed.push(reading.sid);
  };
}

const cases = fc.integer({ min: 1, max: 2_000 }).chain((count) =>
  fc.record({
    count: fc.constant(count),
    refused: fc.uniqueArray(fc.nat({ max: count - 1 }), { maxLength: 12 }),
  })
);

Deno.test("a batch that the database accepts is one statement", async () => {
  const fake = new FakeConnection([]);
  const reports = new Reports();
  await storeReadings(fake.connection, makeItems(2_000), reports);
  assert.deepEqual([fake.statements, reports.stored.length, reports.refused.length], [1, 2_000, 0]);
});

Deno.test("a batch that is too large for the database is stored in parts", async () => {
  const fake = new FakeConnection([]);
  const reports = new Reports();
  fake.limit = 300;
  await storeReadings(fake.connection, makeItems(2_000), reports);
  assert.deepEqual(reports.stored, [...Array(2_000).keys()]);
  fake.limit = 0;
  await storeReadings(fake.connection, makeItems(2), reports);
  assert.deepEqual([reports.refused, reports.failed], [[], [0, 1]]);
});

Deno.test("an empty batch is no statement", async () => {
  const fake = new FakeConnection([]);
  const reports = new Reports();
  await storeReadings(fake.connection, [], reports);
  assert.deepEqual([fake.statements, reports.stored], [0, []]);
});

Deno.test("a rejected row is reported with the database's message", async () => {
  const reports = new Reports();
  await storeReadings(new FakeConnection([0]).connection, makeItems(1), reports);
  assert.deepEqual(reports.reasons, [
    "the database rejected the reading: row 0 violates a constraint",
  ]);
});

Deno.test("each row is reported once and in order with few statements, for any rejected rows", async () => {
  await fc.assert(fc.asyncProperty(cases, async ({ count, refused }) => {
    const fake = new FakeConnection(refused);
    const reports = new Reports();
    await storeReadings(fake.connection, makeItems(count), reports);
    assert.deepEqual(reports.refused, refused.toSorted((one, other) => one - other));
    const good = [...Array(count).keys()].filter((sid) => !refused.includes(sid));
    assert.deepEqual(reports.stored, good);
    assert.deepEqual(fake.stored, good);
    assert.equal(reports.reasons.length, refused.length);
    const most = 1 + refused.length * 2 * Math.ceil(Math.log2(count));
    assert.ok(fake.statements <= most, `${fake.statements} statements, ${most} expected at most`);
  }));
});

Deno.test("a lost connection ends the storing, and the reported rows are the stored ones", async () => {
  const lost = fc.tuple(cases, fc.nat({ max: 30 }));
  await fc.assert(fc.asyncProperty(lost, async ([{ count, refused }, lastStatement]) => {
    const fake = new FakeConnection(refused, lastStatement);
    const reports = new Reports();
    let failed = false;
    try {
      await storeReadings(fake.connection, makeItems(count), reports);
    } catch (error) {
      assert.ok(error instanceof DatabaseError && !error.isContent);
      failed = true;
    }
    assert.equal(failed, fake.statements > lastStatement);
    assert.deepEqual(reports.stored, fake.stored);
    assert.equal(
      new Set([...reports.stored, ...reports.refused]).size,
      reports.stored.length +
        reports.refused.length,
    );
    assert.ok(reports.refused.every((sid) => refused.includes(sid)));
    if (!failed) assert.equal(reports.stored.length + reports.refused.length, count);
  }));
});
