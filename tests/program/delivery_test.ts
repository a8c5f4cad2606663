/**
 * From the broker to the table: every reading is stored once, exact to the bit and the microsecond.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import type { MosquittoBroker } from "../support/mosquitto.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
import { publishReadings } from "../support/publisher.ts";
import { publishReadingsFast } from "../support/publisher_process.ts";
import { expectStored, makeReadings } from "../support/readings.ts";
import {
  countConnections,
  createSession,
  expectNothingLeft,
  linesOf,
  onlyLine,
  startTellingMosquitto,
  stopCleanly,
  usePostgres,
  waitForRows,
  waitForSubscription,
} from "../support/harness.ts";
import { lacks } from "../support/programs.ts";

const postgres = usePostgres();

for (const qos of [1, 2] as const) {
  Deno.test(`run stores each of 10,000 readings of QoS ${qos} once, exact to the bit`, async () => {
    const database = await postgres.createDatabase();
    await using broker = await startBroker();
    await createSession(broker);
    const env = loggerEnv({ database, broker });
    await using logger = startLogger(env);
    await logger.waitForLine("Connected to MQTT broker");

    const readings = makeReadings({ count: 10_000, seed: qos });
    await publishReadingsFast(broker, readings, { qos });
    await waitForRows(database, readings.length);
    await expectStored(database, readings);

    const counts = await stopCleanly(logger);
    assert.equal(counts.stored, readings.length);
    assert.equal(counts.stored + counts.duplicates, counts.received);
    await expectStored(database, readings);
    // Aedes resends some messages of QoS 2, which a broker may do.
    if (broker.kind === "aedes") return;
    await using again = startLogger(env);
    await expectNothingLeft(again, broker);
  });
}

Deno.test("run stores readings of QoS 0 and those of a subscription with QoS 0", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto();
  const readings = makeReadings({ count: 600 });
  for (const [MQTT_QOS, qos, from] of [["2", 0, 0], ["0", 2, 300]] as const) {
    const clientId = `subscribes-with-${MQTT_QOS}`;
    const env = loggerEnv({ database, broker }, { MQTT_CLIENT_ID: clientId, MQTT_QOS });
    await using logger = startLogger(env);
    await waitForSubscription(broker, { clientId });
    await publishReadings(broker, readings.slice(from, from + 300), { qos });
    await waitForRows(database, from + 300);
    const { received, stored, duplicates } = await stopCleanly(logger);
    assert.deepEqual([received, stored, duplicates], [300, 300, 0]);
  }
  await expectStored(database, readings);
});

Deno.test(
  "a backlog of 20,000 messages of QoS 2 drains over one connection, with MQTT 5 and 3.1.1",
  {
    ignore: lacks("mosquitto"),
  },
  async (t) => {
    await using broker: MosquittoBroker = await startTellingMosquitto();
    const sessions: { version: string; database: TestDatabase; clientId: string }[] = [];
    for (const version of ["5", "4"]) {
      const database = await postgres.createDatabase();
      sessions.push({ version, database, clientId: `speaks-${version}` });
    }
    const envOf = ({ version, database, clientId }: typeof sessions[number]) =>
      loggerEnv({ database, broker }, {
        MQTT_CLIENT_ID: clientId,
        MQTT_PROTOCOL_VERSION: version,
        MQTT_TOPIC: `sensors/#,${clientId}`,
      });
    for (const session of sessions) {
      await using logger = startLogger(envOf(session));
      await waitForSubscription(broker, session);
      await stopCleanly(logger);
    }
    const readings = makeReadings({ count: 20_000 });
    await publishReadingsFast(broker, readings);

    for (const session of sessions) {
      const name = session.version === "5" ? "MQTT 5" : "MQTT 3.1.1";
      await t.step(`with ${name}`, async () => {
        const { database, clientId } = session;
        const before = countConnections(broker, clientId);
        await using logger = startLogger(envOf(session));
        await waitForRows(database, readings.length);
        const counts = await stopCleanly(logger);
        assert.deepEqual([counts.received, counts.stored], [readings.length, readings.length]);
        await expectStored(database, readings);
        assert.equal(countConnections(broker, clientId), before + 1);
        assert.deepEqual(linesOf(logger, "ERROR"), []);
        onlyLine(
          logger,
          "INFO",
          new RegExp(`Connected to MQTT broker .*\\(${name}, session resumed`),
        );

        await using again = startLogger(envOf(session));
        await expectNothingLeft(again, broker, clientId);
      });
    }
    assert.deepEqual(
      broker.logLines.filter((line) => /protocol error|unknown packet/.test(line)),
      [],
    );
  },
);

Deno.test("a single reading is stored alone, without waiting for others", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const env = loggerEnv({ database, broker }, { APPLICATION_LOG_LEVEL: "DEBUG" });
  await using logger = startLogger(env);
  await logger.waitForLine("Connected to MQTT broker");
  const readings = makeReadings({ count: 3 });
  for (const [index, reading] of readings.entries()) {
    await publishReadings(broker, [reading]);
    await waitForRows(database, index + 1);
  }
  await stopCleanly(logger);
  const batches = linesOf(logger, "DEBUG").filter((line) => line.startsWith("Committed"));
  assert.deepEqual(
    batches,
    readings.map(() => "Committed a batch of 1: 1 stored, 0 duplicates, 0 not stored."),
  );
});
