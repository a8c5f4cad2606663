/** The writer: rows that the database refuses, rows that it cannot store yet, changed columns. */
import assert from "node:assert/strict";
import { ColumnsChangedError } from "../../../lib/database/errors.ts";
import type { Reading } from "../../../lib/message/reading.ts";
import { COLUMNS, databaseError, type InsertAnswer, storeAll } from "../../fakes/fake_database.ts";
import { settle } from "../../fakes/fake_time.ts";
import { WriterScene } from "../../fakes/writer_scene.ts";
import {
  invalidDelivery,
  readingDeliveries,
  readingDelivery,
  statesOf,
} from "../../support/deliveries.ts";
import { refuseWrites, TemporarySpool } from "../../support/temporary_spool.ts";

/** Fails every statement with one of these sids, stores the others. */
function failOn(sids: readonly number[], sqlState: string): InsertAnswer {
  return (readings) => {
    const bad = readings.find(({ sid }) => sids.includes(sid));
    if (bad !== undefined) throw databaseError(`sid ${bad.sid} is at fault`, sqlState);
    return storeAll(readings);
  };
}

const NUMERIC_OUT_OF_RANGE = "22003";
const INTERNAL_ERROR = "XX000";

Deno.test("a row at fault is found by halving, and recorded before it is finished", async () => {
  using spool = new TemporarySpool();
  using scene = new WriterScene({ spoolFile: spool.open() });
  scene.database.onInsert = failOn([2], NUMERIC_OUT_OF_RANGE);
  const deliveries = readingDeliveries(4);
  let recorded: unknown[] = [];
  const bad = deliveries[2];
  assert.ok(bad);
  bad.onSafe = () => recorded = spool.query("SELECT topic, reason FROM rejected");
  await scene.start();
  await scene.receive(...deliveries);
  const reason = "the database rejected the reading: sid 2 is at fault";
  assert.deepEqual(recorded.map((row) => Object.assign({}, row)), [{ topic: "kraken/2", reason }]);
  assert.deepEqual(scene.database.statements, [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]);
  assert.deepEqual(statesOf(deliveries), Array(4).fill("done"));
  assert.deepEqual(
    [scene.statistics.outcomes.stored, scene.statistics.outcomes.rejected],
    [3, 1],
  );
  assert.match(scene.lines("WARNING").join(), /^WARNING +Rejected a message on 'kraken\/2': the d/);
  assert.equal(scene.database.connections.length, 1);
  await scene.end();
});

Deno.test("messages that are not readings are rejected without a statement", async () => {
  using scene = new WriterScene();
  const deliveries = [invalidDelivery(), readingDelivery(1), invalidDelivery()];
  await scene.start();
  await scene.receive(...deliveries);
  assert.deepEqual(scene.database.statements, [[1]]);
  assert.deepEqual(statesOf(deliveries), ["done", "done", "done"]);
  await scene.receive(invalidDelivery());
  assert.equal(scene.database.statements.length, 1);
  assert.equal(scene.statistics.outcomes.rejected, 3);
  await scene.end();
});

Deno.test("rejections stay rejected when the connection fails in the same batch", async () => {
  using scene = new WriterScene();
  scene.database.onInsert = () => {
    throw databaseError("the connection was reset");
  };
  const deliveries = [invalidDelivery(), readingDelivery(1)];
  await scene.start();
  await scene.receive(...deliveries);
  assert.deepEqual(statesOf(deliveries), ["done", "in flight"]);
  scene.database.onInsert = storeAll;
  await scene.time.pass(100);
  assert.deepEqual(statesOf(deliveries), ["done", "done"]);
  assert.deepEqual(
    [scene.statistics.outcomes.stored, scene.statistics.outcomes.rejected],
    [1, 1],
  );
  await scene.end();
});

Deno.test("a rejection that cannot be recorded does not keep readings from being stored", async () => {
  using spool = new TemporarySpool();
  const spoolFile = spool.open();
  using scene = new WriterScene({ spoolFile });
  refuseWrites(spoolFile, true);
  const deliveries = [invalidDelivery(), ...readingDeliveries(2)];
  await scene.start();
  await scene.receive(...deliveries);
  assert.deepEqual(statesOf(deliveries), ["done", "done", "done"]);
  assert.match(
    scene.lines("WARNING").join("\n"),
    /Cannot record rejected messages: .*\n.*Rejected/,
  );
  refuseWrites(spoolFile, false);
  await scene.end();
});

Deno.test("a row that fails for an unclear reason is kept and retried after ten seconds", async () => {
  using scene = new WriterScene();
  scene.database.onInsert = failOn([1], INTERNAL_ERROR);
  const deliveries = readingDeliveries(3);
  await scene.start();
  await scene.receive(...deliveries);
  assert.deepEqual(statesOf(deliveries), ["done", "in flight", "done"]);
  assert.equal(scene.inbox.postponedCount, 1);
  const before = scene.database.statements.length;
  await scene.time.pass(9_999);
  assert.equal(scene.database.statements.length, before);
  await scene.time.pass(1);
  assert.deepEqual(scene.database.statements.slice(before), [[1]]);
  scene.database.onInsert = storeAll;
  await scene.time.pass(10_000);
  assert.deepEqual(statesOf(deliveries), ["done", "done", "done"]);
  const warnings = scene.lines("WARNING");
  assert.match(warnings.join("\n"), /^WARNING +A message on 'kraken\/1' cannot be stored at pres/);
  assert.equal(warnings.length, 1);
  assert.deepEqual([scene.lines("ERROR"), scene.database.connections.length], [[], 1]);
  await scene.end();
});

Deno.test("more than a hundred rows that fail for an unclear reason are an outage", async () => {
  using scene = new WriterScene();
  const deliveries = readingDeliveries(101);
  const sids = [...deliveries.keys()];
  scene.database.onInsert = failOn(sids, INTERNAL_ERROR);
  await scene.start();
  await scene.receive(...deliveries.slice(0, 100));
  // Halving needs some 200 statements.
  for (let turn = 0; turn < 100; turn++) await settle();
  assert.deepEqual([scene.inbox.postponedCount, scene.lines("ERROR")], [100, []]);
  await scene.receive(...deliveries.slice(100));
  assert.match(scene.lines("ERROR").join("\n"), /^ERROR .* not available: sid 100 is at fault\./);
  scene.database.onInsert = storeAll;
  await scene.time.pass(10_000);
  assert.ok(deliveries.every(({ isDone }) => isDone));
  assert.equal(scene.statistics.outcomes.stored, 101);
  await scene.end();
});

Deno.test("a batch is decoded again when a column has changed, over the same connection", async () => {
  using scene = new WriterScene();
  const values: Reading["value"][] = [];
  let hasChanged = false;
  scene.database.onReadColumns = () => hasChanged ? { ...COLUMNS, value: "numeric" } : COLUMNS;
  scene.database.onInsert = (readings) => {
    values.push(...readings.map(({ value }) => value));
    if (hasChanged) return storeAll(readings);
    hasChanged = true;
    throw new ColumnsChangedError();
  };
  const delivery = readingDelivery(1, { value: "1.50" });
  await scene.start();
  await scene.receive(delivery);
  assert.deepEqual(values, [1.5, "1.50"]);
  assert.deepEqual([delivery.state, scene.database.connections.length], ["done", 1]);
  assert.deepEqual(scene.lines("ERROR"), []);
  assert.deepEqual(scene.lines("INFO").slice(1), [
    "INFO     The column sensor_data.value is of type numeric now.",
  ]);
  await scene.end();
});

Deno.test("a reading is not rejected by columns that have changed meanwhile", async () => {
  using scene = new WriterScene();
  let value: "smallint" | "double precision" = "smallint";
  scene.database.onReadColumns = () => ({ ...COLUMNS, value });
  const [early, late] = [readingDelivery(1), readingDelivery(2)];
  await scene.start();
  await scene.receive(early);
  assert.equal(scene.statistics.outcomes.rejected, 1);
  value = "double precision";
  await scene.receive(late);
  assert.deepEqual([early.state, late.state], ["done", "done"]);
  assert.deepEqual(
    [scene.statistics.outcomes.stored, scene.statistics.outcomes.rejected],
    [1, 1],
  );
  await scene.end();
});

Deno.test("the column whose type has changed is logged, and no other", async () => {
  using scene = new WriterScene();
  await scene.start();
  scene.database.onReadColumns = () => ({ ...COLUMNS, sid: "integer" });
  const delivery = readingDelivery(70_000);
  await scene.receive(delivery);
  assert.deepEqual([scene.statistics.outcomes.stored, delivery.state], [1, "done"]);
  const lines = scene.lines("INFO").filter((line) => line.includes("is of type"));
  assert.deepEqual(lines, ["INFO     The column sensors.sensor_sid is of type integer now."]);
  await scene.end();
});

Deno.test("changed columns that cannot be used are an outage, and the batch is kept", async () => {
  using scene = new WriterScene();
  scene.database.onInsert = () => {
    scene.database.onReadColumns = () => {
      throw databaseError("the column sensor_data.value has the type text");
    };
    throw new ColumnsChangedError();
  };
  const delivery = readingDelivery(1);
  await scene.start();
  await scene.receive(delivery);
  assert.match(scene.lines("ERROR").join(), /not available: the column .* has the type text\./);
  assert.deepEqual([delivery.state, scene.inbox.inMemory], ["in flight", 1]);
  scene.database.onInsert = storeAll;
  scene.database.onReadColumns = () => COLUMNS;
  await scene.time.pass(100);
  assert.equal(delivery.state, "done");
  await scene.end();
});
