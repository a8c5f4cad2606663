/** Delivery by RabbitMQ's MQTT plugin, which speaks 3.1.1 and grants QoS 1, and hangs up on MQTT 5. */
import assert from "node:assert/strict";
import { loggerEnv, runLogger, startLogger } from "../services/logger_process.ts";
import { publishReadings } from "../services/publisher.ts";
import { findRabbitMq, type RabbitMqBroker, startRabbitMq } from "../services/rabbitmq.ts";
import { expectStored, makeReadings } from "../services/readings.ts";
import { startScriptedBroker } from "./scripted_broker.ts";
import { linesOf, slowInserts, stopCleanly, usePostgres, waitForRows } from "./harness.ts";

const postgres = usePostgres();

/** Where it is missing, its tests are left out, except in CI: there they fail. */
const ignore = findRabbitMq() === null && Deno.env.get("CI") !== "true";

let rabbit: RabbitMqBroker | undefined;

Deno.test.beforeAll(async () => {
  if (!ignore) rabbit = await startRabbitMq();
});
Deno.test.afterAll(async () => {
  await rabbit?.[Symbol.asyncDispose]();
});

function getBroker(): RabbitMqBroker {
  return rabbit ?? assert.fail("RabbitMQ did not start");
}

for (const qos of [1, 2] as const) {
  Deno.test(`run stores what is published to RabbitMQ with QoS ${qos}, killed and started again`, {
    ignore,
  }, async () => {
    const broker = getBroker();
    const database = await postgres.createDatabase();
    // So that the one that is killed has something in hand.
    await slowInserts(database, 0.1);
    const env = loggerEnv({ database, broker }, {
      MQTT_CLIENT_ID: `kraken-qos-${qos}`,
      MQTT_TOPIC: `sensors/qos${qos}/#`,
    });
    const readings = makeReadings({ count: 800 });
    const topic = `sensors/qos${qos}/x`;
    {
      await using logger = startLogger(env);
      await logger.waitForLine("(MQTT 3.1.1, ");
      await logger.waitForLine("grants QoS 1 for");
      assert.deepEqual(linesOf(logger, "ERROR"), []);
      const publishing = publishReadings(broker, readings, { qos, topic, rate: 400 });
      try {
        await waitForRows(database, 100);
        await logger.kill();
        assert.ok(await database.countReadings() < readings.length, "killed too late");
      } finally {
        await publishing;
      }
    }
    await using again = startLogger(env);
    await again.waitForLine("(MQTT 3.1.1, session resumed)");
    await waitForRows(database, readings.length);
    await expectStored(database, readings);
    assert.ok((await stopCleanly(again)).stored > 0);
  });
}

Deno.test(
  "run goes on when RabbitMQ was restarted, with what it has kept",
  { ignore },
  async () => {
    const broker = getBroker();
    const database = await postgres.createDatabase();
    const env = loggerEnv({ database, broker }, {
      MQTT_CLIENT_ID: "kraken-restart",
      MQTT_TOPIC: "sensors/restart/#",
    });
    await using logger = startLogger(env);
    await logger.waitForLine("grants QoS 1 for");
    const readings = makeReadings({ count: 200 });
    const topic = "sensors/restart/x";
    await publishReadings(broker, readings.slice(0, 100), { topic, qos: 1 });
    await waitForRows(database, 100);
    await broker.stop();
    await logger.waitForLine("is not available");
    await broker.start();
    await logger.waitForLine("is available again", { timeoutMs: 60_000 });
    await publishReadings(broker, readings.slice(100), { topic, qos: 1 });
    await waitForRows(database, readings.length);
    await expectStored(database, readings);
    await stopCleanly(logger);
    const { code, stdout } = await runLogger(["check"], env);
    assert.match(stdout, /connected with MQTT 3\.1\.1/);
    assert.equal(code, 0, stdout);
  },
);

Deno.test("a broker that hangs up on MQTT 5 is asked for it again at the next connection", async () => {
  const database = await postgres.createDatabase();
  const versions: number[] = [];
  await using broker = await startScriptedBroker({
    hangsUpOn: (protocolVersion) => {
      versions.push(protocolVersion);
      return protocolVersion === 5 && versions.length < 3;
    },
  });
  await using logger = startLogger(loggerEnv({ database, broker }));
  const first = await broker.subscribed(1);
  first.cut();
  await broker.subscribed(2);
  await logger.waitForLine("(MQTT 5, ");
  assert.deepEqual(versions, [5, 4, 5]);
  await logger.stop();
});
