/**
 * Subscriptions: added and removed filters, shared groups, refusals, lower QoS, retained messages.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { waitUntil } from "../support/poll.ts";
import { startProxy } from "../support/proxy.ts";
import { publishReadings } from "../support/publisher.ts";
import { expectStored, makeReadings, toPayload } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  CLIENT_ID,
  linesOf,
  onlyLine,
  startTellingMosquitto,
  stopCleanly,
  stopWhenDrained,
  usePostgres,
  waitForRows,
  waitForSubscription,
} from "../support/harness.ts";
import { startScriptedBroker } from "../fakes/scripted_broker.ts";
import { lacks } from "../support/programs.ts";

const postgres = usePostgres();

for (const protocol of ["5", "4"]) {
  Deno.test(`a filter that is no longer configured is unsubscribed (protocol level ${protocol})`, {
    ignore: lacks("mosquitto"),
  }, async () => {
    const database = await postgres.createDatabase();
    await using broker = await startTellingMosquitto();
    const env = loggerEnv({ database, broker }, { MQTT_PROTOCOL_VERSION: protocol });
    {
      await using logger = startLogger({ ...env, MQTT_TOPIC: "old/+/x,sensors/#" });
      await waitForSubscription(broker, { filter: "old/+/x" });
      await waitForSubscription(broker);
      await stopCleanly(logger);
    }
    const [away, wanted, left] = [0, 1, 2].map((part) =>
      makeReadings({ count: 30 }).slice(part * 10, part * 10 + 10)
    );
    assert.ok(away && wanted && left);
    await publishReadings(broker, away, { topic: "old/a/x" });
    await using logger = startLogger(env);
    // The broker delivers the messages that it has queued until now, so they are stored.
    await waitForRows(database, away.length);
    const line = await logger.waitForLine("Unsubscribed from");
    assert.match(line, protocol === "5" ? /'old\/\+\/x'/ : /'old\/a\/x'/);
    await publishReadings(broker, left, { topic: "old/a/x" });
    await publishReadings(broker, wanted);
    await waitForRows(database, away.length + wanted.length);
    assert.equal((await stopCleanly(logger)).received, away.length + wanted.length);
    await expectStored(database, [...away, ...wanted]);
  });
}

for (const protocol of ["5", "4"]) {
  Deno.test(
    `with a spool, any filter or group that was configured before is unsubscribed (protocol level ${protocol})`,
    {
      ignore: lacks("mosquitto"),
    },
    async () => {
      using directory = withTemporaryDirectory();
      const database = await postgres.createDatabase();
      await using broker = await startTellingMosquitto();
      const env = loggerEnv({ database, broker }, {
        MQTT_PROTOCOL_VERSION: protocol,
        SPOOL_DIRECTORY: directory.path,
      });
      const courses = [
        { settings: { MQTT_TOPIC: "sensors/a/#" }, filter: "sensors/a/#" },
        { settings: {}, filter: "sensors/#" },
        { settings: { MQTT_SHARED_GROUP: "g" }, filter: "$share/g/sensors/#" },
        { settings: { MQTT_SHARED_GROUP: "h" }, filter: "$share/h/sensors/#" },
        { settings: {}, filter: "sensors/#" },
      ];
      const readings = makeReadings({ count: 10 * courses.length });
      let former: string | undefined;
      for (const [index, { settings, filter }] of courses.entries()) {
        await using logger = startLogger({ ...env, ...settings });
        await waitForSubscription(broker, {
          filter,
          times: filter === "sensors/#" && index > 1 ? 2 : 1,
        });
        if (former !== undefined) {
          const line = `${CLIENT_ID} ${former}`;
          await waitUntil(() => broker.logLines.includes(line), { what: `the end of ${former}` });
          if (protocol === "5") await logger.waitForLine(`Unsubscribed from '${former}'`);
        }
        const part = readings.slice(index * 10, index * 10 + 10);
        await publishReadings(broker, part, { topic: "sensors/a/b" });
        await waitForRows(database, 10 * (index + 1));
        const { received, stored } = await stopWhenDrained(logger, broker, "sensors/a/b");
        assert.deepEqual([received, stored], [11, 10], `with ${filter}`);
        former = filter;
      }
      await expectStored(database, readings);
    },
  );
}

Deno.test("a shared filter that is no longer configured is unsubscribed", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto();
  const env = loggerEnv({ database, broker }, { MQTT_SHARED_GROUP: "g" });
  {
    await using logger = startLogger({ ...env, MQTT_TOPIC: "old/#" });
    await waitForSubscription(broker, { filter: "$share/g/old/#" });
    await stopCleanly(logger);
  }
  await using logger = startLogger(env);
  await waitForSubscription(broker, { filter: "$share/g/sensors/#" });
  const readings = makeReadings({ count: 21 });
  // Only one message: the logger unsubscribes when it has received it, and gets no other.
  const [first, second, wanted] = [readings.slice(0, 1), readings.slice(1, 11), readings.slice(11)];
  await publishReadings(broker, first, { topic: "old/x" });
  await logger.waitForLine("Unsubscribed from '$share/g/old/#': no longer configured.");
  await publishReadings(broker, second, { topic: "old/x" });
  await publishReadings(broker, wanted);
  await waitForRows(database, first.length + wanted.length);
  await stopCleanly(logger);
  await expectStored(database, [...first, ...wanted]);
});

Deno.test("a subscription that cannot be determined is logged when messages arrive by it", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto();
  const env = loggerEnv({ database, broker });
  {
    await using logger = startLogger({ ...env, MQTT_TOPIC: "old/#", MQTT_SHARED_GROUP: "g" });
    await waitForSubscription(broker, { filter: "$share/g/old/#" });
    await stopCleanly(logger);
  }
  await using logger = startLogger(env);
  await waitForSubscription(broker);
  await publishReadings(broker, makeReadings({ count: 10 }), { topic: "old/x" });
  await logger.waitForLine("Messages arrive on 'old/x', which MQTT_TOPIC does not match");
  await stopCleanly(logger);
  onlyLine(logger, "WARNING", /perhaps of another shared group/);
});

Deno.test("with several overlapping filters, a reading is stored once", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto();
  await using logger = startLogger(
    loggerEnv({ database, broker }, { MQTT_TOPIC: "lab/a/#, lab/+/b, other" }),
  );
  for (const filter of ["lab/a/#", "lab/+/b", "other"]) {
    await waitForSubscription(broker, { filter });
  }
  const readings = makeReadings({ count: 40 });
  for (const [index, topic] of ["lab/a/b", "lab/c/b", "lab/a/x/y", "other"].entries()) {
    await publishReadings(broker, readings.slice(index * 10, index * 10 + 10), { topic });
  }
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  assert.deepEqual(linesOf(logger, "WARNING"), []);
  await stopCleanly(logger);
});

Deno.test("two loggers of a shared group together store each reading once", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto();
  const start = (id: string): ReturnType<typeof startLogger> =>
    startLogger(
      loggerEnv({ database, broker }, { MQTT_CLIENT_ID: id, MQTT_SHARED_GROUP: "loggers" }),
    );
  await using first = start("first");
  await using second = start("second");
  for (const id of ["first", "second"]) {
    await waitForSubscription(broker, { filter: "$share/loggers/sensors/#", clientId: id });
  }
  const readings = makeReadings({ count: 500 });
  await publishReadings(broker, readings);
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  const counts = [await stopCleanly(first), await stopCleanly(second)];
  assert.ok(counts.every(({ stored }) => stored > 0), JSON.stringify(counts));
  assert.equal(counts.reduce((sum, { received }) => sum + received, 0), readings.length);
});

Deno.test("a session that is older than the shared group gets nothing twice", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto();
  const env = loggerEnv({ database, broker });
  {
    await using logger = startLogger(env);
    await waitForSubscription(broker);
    await stopCleanly(logger);
  }
  await using logger = startLogger({ ...env, MQTT_SHARED_GROUP: "loggers" });
  await waitForSubscription(broker, { filter: "$share/loggers/sensors/#" });
  // The logger subscribes before it unsubscribes, so that nothing is lost. Messages published between
  // the two arrive twice, and are stored once.
  await logger.waitForLine("Unsubscribed from 'sensors/#': no longer configured.");
  const readings = makeReadings({ count: 100 });
  await publishReadings(broker, readings);
  await waitForRows(database, readings.length);
  assert.equal((await stopCleanly(logger)).received, readings.length);
});

for (
  const { protocol, code, reason } of [
    { protocol: "5", code: 0x87, reason: "not authorized" },
    { protocol: "4", code: 0x80, reason: "" },
  ]
) {
  Deno.test(`a refused subscription is logged with its reason, and the others work (protocol level ${protocol})`, async () => {
    const database = await postgres.createDatabase();
    await using broker = await startScriptedBroker({
      grant: (filter, qos) => filter.startsWith("secret/") ? code : qos,
    });
    await using logger = startLogger(loggerEnv({ database, broker }, {
      MQTT_TOPIC: "secret/#,sensors/#",
      MQTT_PROTOCOL_VERSION: protocol,
    }));
    await logger.waitForLine(`Subscription to 'secret/#' was refused: ${reason}`);
    const connection = await broker.subscribed(0);
    const readings = makeReadings({ count: 1 });
    readings.forEach((reading) => connection.publish(1, toPayload(reading), { qos: 1 }));
    await waitForRows(database, 1);
    await expectStored(database, readings);
    await stopCleanly(logger);
    assert.doesNotMatch(onlyLine(logger, "ERROR", /refused/), /0x|code/);
  });
}

Deno.test("a lower QoS than requested is logged as one warning", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto({ maxQos: 1 });
  await using logger = startLogger(loggerEnv({ database, broker }));
  const readings = makeReadings({ count: 200 });
  for (const part of [0, 1]) {
    await waitForSubscription(broker);
    const half = readings.slice(part * 100, part * 100 + 100);
    await publishReadings(broker, half, { qos: 1 });
    await waitForRows(database, part * 100 + 100);
    if (part === 0) await broker.restart();
  }
  await expectStored(database, readings);
  await stopCleanly(logger);
  const warning = onlyLine(logger, "WARNING", /./);
  assert.match(warning, /^The broker granted QoS 1 for 'sensors\/#' instead of 2\./);
});

Deno.test("retained readings are stored once, and not requested at every reconnection (MQTT 5)", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto();
  await using proxy = await startProxy(broker);
  const [retained, live] = [makeReadings({ count: 20 }), makeReadings({ count: 40 }).slice(20)];
  for (const [index, reading] of retained.entries()) {
    await publishReadings(broker, [reading], { retain: true, topic: `sensors/kept/${index}` });
  }
  await using logger = startLogger(loggerEnv({ database, broker: proxy }));
  await waitForRows(database, retained.length);
  await expectStored(database, retained);
  for (const times of [2, 3]) {
    assert.equal(proxy.reset(), 1);
    await waitForSubscription(broker, { times });
  }
  // They would arrive before all messages published after the subscription.
  await publishReadings(broker, live);
  await waitForRows(database, retained.length + live.length);
  await expectStored(database, [...retained, ...live]);
  const counts = await stopCleanly(logger);
  assert.deepEqual([counts.received, counts.duplicates], [retained.length + live.length, 0]);
});

Deno.test("with MQTT 3.1.1 retained readings are redelivered, and counted as duplicates", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  const readings = makeReadings({ count: 5 });
  for (const [index, reading] of readings.entries()) {
    await publishReadings(broker, [reading], { retain: true, topic: `sensors/kept/${index}` });
  }
  const env = loggerEnv({ database, broker }, {
    MQTT_PROTOCOL_VERSION: "4",
    APPLICATION_LOG_LEVEL: "DEBUG",
  });
  for (const stored of [5, 0]) {
    await using logger = startLogger(env);
    await waitUntil(
      () =>
        linesOf(logger, "DEBUG").filter((line) => /^Stored/.test(line)).length >= readings.length,
      {
        what: "all readings to be stored or counted as duplicates",
      },
    );
    const counts = await stopCleanly(logger);
    assert.deepEqual([counts.stored, counts.duplicates], [stored, readings.length - stored]);
  }
  await expectStored(database, readings);
});
