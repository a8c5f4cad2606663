/**
 * Acknowledgements packet by packet: after the commit, in order, and on the connection that
 * delivered the message.
 */
import assert from "node:assert/strict";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { waitUntil } from "../support/poll.ts";
import { expectStored, makeReadings, type Reading, toPayload } from "../support/readings.ts";
import {
  linesOf,
  stopCleanly,
  usePostgres,
  waitForBlockedInsert,
  waitForRows,
} from "../support/harness.ts";
import { startScriptedBroker } from "../fakes/scripted_broker.ts";

const postgres = usePostgres();

/** Payloads of readings that the table can hold. */
function payloadsOf(readings: readonly Reading[]): string[] {
  return readings.map(toPayload);
}

for (
  const { qos, acknowledgement } of [
    { qos: 1, acknowledgement: "puback" },
    { qos: 2, acknowledgement: "pubrec" },
  ] as const
) {
  Deno.test(`run sends a ${acknowledgement.toUpperCase()} after the commit, not before`, async () => {
    const database = await postgres.createDatabase();
    await using broker = await startScriptedBroker();
    await using lock = await database.connect();
    await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
    await using logger = startLogger(loggerEnv({ database, broker }));
    const connection = await broker.subscribed(0);
    const readings = makeReadings({ count: 3 });
    payloadsOf(readings).forEach((payload, index) =>
      connection.publish(index + 1, payload, { qos })
    );
    await waitForBlockedInsert(database);
    await connection.settled();
    assert.deepEqual(connection.acknowledgements, []);

    await lock.query("ROLLBACK");
    await connection.waitForAcknowledgements(3);
    assert.deepEqual(connection.acknowledgements, [1, 2, 3].map((id) => [acknowledgement, id]));
    await expectStored(database, readings);
    [1, 2, 3].forEach((id) => qos === 2 && connection.release(id));
    await stopCleanly(logger);
    assert.equal(connection.packets.at(-1)?.cmd, "disconnect");
  });
}

Deno.test("run acknowledges a rejected message in its turn, after logging the reason", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startScriptedBroker();
  await using logger = startLogger(loggerEnv({ database, broker }));
  const connection = await broker.subscribed(0);
  const readings = makeReadings({ count: 2 });
  const [first = "", second = ""] = payloadsOf(readings);
  // One TCP segment, so that the messages are one batch.
  [first, "{}", second].forEach((payload, index) => connection.publish(index + 1, payload));
  await connection.waitForAcknowledgements(3);
  assert.deepEqual(connection.acknowledgements, [1, 2, 3].map((id) => ["pubrec", id]));
  await logger.waitForLine("Rejected a message on 'sensors/test': timestamp is missing");
  await expectStored(database, readings);
  [1, 2, 3].forEach((id) => connection.release(id));
  assert.equal((await stopCleanly(logger)).rejected, 1);
});

for (const protocol of ["4", "5"]) {
  Deno.test(`run never acknowledges packet ids of an earlier connection (protocol level ${protocol})`, async () => {
    const database = await postgres.createDatabase();
    await using broker = await startScriptedBroker();
    await postgres.server.stop();
    const env = loggerEnv({ database, broker }, { MQTT_PROTOCOL_VERSION: protocol });
    const readings = makeReadings({ count: 4 });
    const payloads = payloadsOf(readings);
    await using logger = startLogger(env);
    try {
      const first = await broker.subscribed(0);
      first.publish(11, payloads[0] ?? "");
      first.publish(12, payloads[1] ?? "");
      await first.settled();
      first.cut();
      // A message of the first connection is delivered again, with another packet id.
      const second = await broker.subscribed(1);
      second.publish(21, payloads[1] ?? "");
      second.publish(22, payloads[2] ?? "");
      await second.settled();
      second.cut();
      const third = await broker.subscribed(2);
      third.publish(31, payloads[3] ?? "");
      await third.settled();
    } finally {
      await postgres.server.start();
    }
    await waitForRows(database, readings.length);
    const third = broker.connections[2];
    assert.ok(third);
    await third.waitForAcknowledgements(1);
    await third.settled();
    assert.deepEqual(third.acknowledgements, [["pubrec", 31]]);
    third.release(31);
    const { received, stored, redelivered } = await stopCleanly(logger);
    assert.deepEqual([received, stored, redelivered], [4, 4, 1]);
    await expectStored(database, readings);
    const earlier = broker.connections.slice(0, 2).map((connection) => connection.acknowledgements);
    assert.deepEqual(earlier, [[], []]);
  });
}

Deno.test("run stores messages received before the signal, and leaves later ones with the broker", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startScriptedBroker();
  await using lock = await database.connect();
  await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
  await using logger = startLogger(loggerEnv({ database, broker }));
  const connection = await broker.subscribed(0);
  await logger.waitForLine("Connected to database");
  const [before, after] = makeReadings({ count: 2 });
  assert.ok(before && after);
  connection.publish(1, toPayload(before));
  await connection.settled();
  logger.signal("SIGTERM");
  await logger.waitForLine("Received SIGTERM");
  connection.publish(2, toPayload(after));
  await connection.settled();
  await lock.query("ROLLBACK");
  await connection.waitForAcknowledgements(1);
  connection.release(1);
  assert.equal((await logger.exited).code, 0);
  assert.deepEqual(connection.acknowledgements, [["pubrec", 1], ["pubcomp", 1]]);
  assert.equal(connection.packets.at(-1)?.cmd, "disconnect");
  await expectStored(database, [before]);
});

Deno.test("run stores messages that a broker sends right after the CONNACK", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startScriptedBroker();
  await using logger = startLogger(loggerEnv({ database, broker }));
  const connection = await waitUntil(() => broker.connections[0]);
  await waitUntil(() => connection.packets[0]);
  const readings = makeReadings({ count: 1 });
  connection.publish(1, toPayload(readings[0] as Reading));
  await connection.waitForAcknowledgements(1);
  await expectStored(database, readings);
  assert.deepEqual(linesOf(logger, "ERROR"), []);
  connection.release(1);
  await stopCleanly(logger);
});
