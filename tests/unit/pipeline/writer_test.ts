/** The writer: when it finishes deliveries, how it retries, and that it closes every connection. */
import assert from "node:assert/strict";
import type { InsertResult } from "../../../lib/database/connection.ts";
import { COLUMNS, databaseError, insertResult, storeAll } from "../../fakes/fake_database.ts";
import { WriterScene } from "../../fakes/writer_scene.ts";
import {
  invalidDelivery,
  readingDeliveries,
  readingDelivery,
  statesOf,
} from "../../support/deliveries.ts";
import { TemporarySpool } from "../../support/temporary_spool.ts";

Deno.test("a delivery is finished only after the insert of its batch has committed", async () => {
  using scene = new WriterScene();
  const commit = Promise.withResolvers<InsertResult>();
  scene.database.onInsert = () => commit.promise;
  const deliveries = readingDeliveries(2);
  await scene.start();
  await scene.receive(...deliveries);
  await scene.time.pass(5_000);
  assert.deepEqual(scene.database.statements, [[0, 1]]);
  assert.deepEqual(statesOf(deliveries), ["in flight", "in flight"]);
  assert.equal(scene.statistics.outcomes.stored, 0);
  commit.resolve(insertResult({ stored: 2 }));
  await scene.time.pass(0);
  assert.deepEqual(statesOf(deliveries), ["done", "done"]);
  assert.deepEqual([scene.statistics.outcomes.stored, scene.statistics.waiting], [2, 0]);
  await scene.end();
});

Deno.test("a connection stores one batch at a time, in the order of arrival", async () => {
  using scene = new WriterScene();
  const commits: (() => void)[] = [];
  scene.database.onInsert = ({ length }) =>
    new Promise((resolve) => commits.push(() => resolve(insertResult({ stored: length }))));
  const deliveries = readingDeliveries(6);
  await scene.start();
  await scene.receive(...deliveries.slice(0, 1));
  for (const delivery of deliveries.slice(1)) await scene.receive(delivery);
  assert.deepEqual(scene.database.statements, [[0]]);
  commits.shift()?.();
  await scene.time.pass(0);
  assert.deepEqual(scene.database.statements, [[0], [1, 2, 3, 4, 5]]);
  commits.shift()?.();
  await scene.end();
  assert.equal(scene.statistics.outcomes.stored, 6);
});

Deno.test("several connections store batches at the same time", async () => {
  using scene = new WriterScene({ connections: 3 });
  const commit = Promise.withResolvers<InsertResult>();
  scene.database.onInsert = () => commit.promise;
  await scene.start();
  for (const delivery of readingDeliveries(5)) await scene.receive(delivery);
  assert.deepEqual(scene.database.statements, [[0], [1], [2]]);
  assert.equal(scene.inbox.length, 2);
  commit.resolve(insertResult({ stored: 1 }));
  await scene.end();
  assert.equal(scene.database.connections.length, 3);
});

Deno.test("an outage is logged once, and over with the first batch that is stored", async () => {
  using scene = new WriterScene();
  const reasons = ["the connection was reset", "the database is starting up", "out of memory"];
  scene.database.onInsert = () => {
    throw databaseError(reasons.shift() ?? "");
  };
  const deliveries = readingDeliveries(3);
  await scene.start();
  await scene.receive(...deliveries);
  await scene.time.pass(300);
  assert.deepEqual(reasons, []);
  assert.deepEqual(statesOf(deliveries), ["in flight", "in flight", "in flight"]);
  assert.equal(scene.state.isUnavailable, true);
  scene.database.onInsert = storeAll;
  await scene.time.pass(400);
  assert.deepEqual(statesOf(deliveries), ["done", "done", "done"]);
  assert.deepEqual(scene.database.statements, Array(4).fill([0, 1, 2]));
  const [first, error, info, ...others] = scene.lines("ERROR", "WARNING", "INFO");
  assert.match(first ?? "", /^INFO +Connected to database 'sensors'/);
  assert.match(
    error ?? "",
    /^ERROR +Database 'sensors' .* not available: the connection was reset/,
  );
  assert.match(info ?? "", /^INFO +Database 'sensors' .* available again .* 3 messages waited\.$/);
  assert.deepEqual(others, []);
  assert.equal(scene.state.isUnavailable, false);
  await scene.end();
});

Deno.test("a stored batch ends the outage even if other messages still wait", async () => {
  using scene = new WriterScene();
  scene.database.onInsert = () => {
    throw databaseError("the connection was reset");
  };
  await scene.receive(readingDelivery(1));
  await scene.start();
  await scene.receive(readingDelivery(2));
  assert.equal(scene.state.status.connected, false);
  const commit = Promise.withResolvers<InsertResult>();
  scene.database.onInsert = (readings) =>
    readings[0]?.sid === 1 ? storeAll(readings) : commit.promise;
  await scene.time.pass(100);
  assert.deepEqual(scene.database.statements, [[1], [1], [2]]);
  assert.deepEqual([scene.state.status.connected, scene.statistics.waiting], [true, 1]);
  commit.resolve(insertResult({ stored: 1 }));
  await scene.end();
});

Deno.test("the outage ends without a stored batch when no message waits any more", async () => {
  using scene = new WriterScene();
  scene.database.onOpen = () => {
    throw databaseError("connection refused");
  };
  await scene.start();
  await scene.receive(invalidDelivery());
  scene.database.onOpen = () => {};
  await scene.time.pass(100);
  assert.deepEqual([scene.database.statements, scene.statistics.waiting], [[], 0]);
  assert.equal(scene.state.status.connected, true);
  assert.match(scene.lines("INFO")[0] ?? "", /is available again/);
  await scene.end();
});

Deno.test("a connection that is lost while idle is opened again", async () => {
  using scene = new WriterScene();
  await scene.start();
  scene.database.connections[0]?.lose();
  await scene.time.pass(0);
  assert.match(scene.lines("ERROR").join(), /not available: the server closed the connection\./);
  await scene.time.pass(100);
  assert.match(scene.lines("INFO").at(-1) ?? "", /available again/);
  await scene.receive(readingDelivery(7));
  assert.deepEqual([scene.database.statements, scene.database.connections.length], [[[7]], 2]);
  await scene.end();
});

Deno.test("an abort cuts a hanging insert, whose messages stay in flight", async () => {
  using scene = new WriterScene({ connections: 2 });
  scene.database.onInsert = () => new Promise(() => {});
  await scene.start();
  const deliveries = readingDeliveries(3);
  await scene.receive(...deliveries);
  scene.abort();
  await scene.ended();
  assert.deepEqual(statesOf(deliveries), ["in flight", "in flight", "in flight"]);
  assert.equal(scene.inbox.inMemory, 3);
  assert.deepEqual(scene.database.connections.map(({ cuts }) => cuts), [1, 1]);
  assert.deepEqual(scene.lines("ERROR"), []);
  assert.equal(scene.time.pending, 0);
});

Deno.test("a connection that opens after the abort is closed unused", async () => {
  using scene = new WriterScene();
  const opened = Promise.withResolvers<void>();
  scene.database.onOpen = () => opened.promise;
  let isRead = false;
  scene.database.onReadColumns = () => {
    isRead = true;
    return COLUMNS;
  };
  await scene.start();
  scene.abort();
  opened.resolve();
  await scene.ended();
  assert.deepEqual([scene.database.closings, isRead], [[1], false]);
});

Deno.test("an abort during the backoff ends the writer at once", async () => {
  using scene = new WriterScene();
  scene.database.onOpen = () => {
    throw databaseError("connection refused");
  };
  await scene.start();
  await scene.time.pass(60_000);
  assert.ok(scene.writer.attempts > 5);
  assert.equal(scene.lines("ERROR").length, 1);
  scene.abort();
  await scene.ended();
  assert.equal(scene.time.pending, 0);
});

Deno.test("a connection whose table cannot be used is closed, and another one is tried", async () => {
  using scene = new WriterScene();
  let reads = 0;
  scene.database.onReadColumns = () => {
    if (++reads < 3) throw databaseError("the table 'sensors' does not exist");
    return COLUMNS;
  };
  await scene.start();
  assert.match(scene.lines("ERROR").join(), /not available: the table 'sensors' does not exist\./);
  await scene.time.pass(300);
  assert.deepEqual(scene.database.closings, [1, 1, 0]);
  await scene.receive(readingDelivery(1));
  assert.equal(scene.statistics.outcomes.stored, 1);
  await scene.end();
});

Deno.test("a statement that takes too long is repeated in two halves", async () => {
  using scene = new WriterScene();
  scene.database.onInsert = (readings) => {
    if (readings.length > 2) throw databaseError("canceling statement", "57014");
    return storeAll(readings);
  };
  await scene.start();
  await scene.receive(...readingDeliveries(5));
  await scene.time.pass(300);
  assert.deepEqual(scene.database.statements, [[0, 1, 2, 3, 4], [0, 1, 2], [3, 4], [0, 1], [2]]);
  assert.equal(scene.statistics.outcomes.stored, 5);
  await scene.end();
});

Deno.test("the writer ends when the inbox is closed, after the last batch", async () => {
  using scene = new WriterScene({ connections: 2 });
  const commit = Promise.withResolvers<InsertResult>();
  scene.database.onInsert = () => commit.promise;
  const deliveries = readingDeliveries(3);
  await scene.start();
  await scene.receive(...deliveries);
  scene.inbox.close();
  await scene.time.pass(1_000);
  assert.deepEqual(scene.database.closings.toSorted(), [0, 1]);
  commit.resolve(insertResult({ stored: 3 }));
  await scene.end();
  assert.deepEqual(statesOf(deliveries), ["done", "done", "done"]);
});

Deno.test("records in memory are written every ten seconds, and at the end", async () => {
  using spool = new TemporarySpool();
  using scene = new WriterScene({ spoolFile: spool.open() });
  scene.database.onInsert = ({ length }) => insertResult({ unknown: [...Array(length).keys()] });
  const count = (): unknown => spool.query("SELECT sum(count) AS n FROM unknown_sensor")[0]?.["n"];
  await scene.start();
  await scene.receive(readingDelivery(1));
  await scene.time.pass(9_999);
  assert.equal(count(), null);
  await scene.time.pass(1);
  assert.equal(count(), 1);
  await scene.receive(readingDelivery(1));
  await scene.end();
  assert.equal(count(), 2);
});
