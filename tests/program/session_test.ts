/**
 * Sessions that brokers keep or have lost, and brokers that refuse connections or subscriptions.
 */
import assert from "node:assert/strict";
import { loggerEnv, type LoggerProcess, startLogger } from "../support/logger_process.ts";
import { findFreePort, LOOPBACK } from "../support/ports.ts";
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
  usePostgres,
  waitForRows,
  waitForSubscription,
} from "../support/harness.ts";
import { startScriptedBroker } from "../fakes/scripted_broker.ts";
import { lacks } from "../support/programs.ts";

const postgres = usePostgres();

const LOST =
  `The broker has lost the session of MQTT_CLIENT_ID '${CLIENT_ID}'. Messages published since `;
const NOT_KEPT = " were not queued and are lost.";

/** The duration without a session, from each warning of a lost session. */
function lossesOf(logger: LoggerProcess): string[] {
  return linesOf(logger, "WARNING").filter((line) => /session/.test(line)).map((line) => {
    assert.ok(line.startsWith(LOST) && line.endsWith(NOT_KEPT), line);
    return line.slice(LOST.length, -NOT_KEPT.length);
  });
}

for (const protocol of ["5", "4"]) {
  Deno.test(
    `run warns once of each session that the broker has lost (protocol level ${protocol})`,
    {
      ignore: lacks("mosquitto"),
    },
    async () => {
      const database = await postgres.createDatabase();
      await using broker = await startTellingMosquitto({ persistence: false });
      await using proxy = await startProxy(broker);
      const env = loggerEnv({ database, broker: proxy }, { MQTT_PROTOCOL_VERSION: protocol });
      await using logger = startLogger(env);
      const readings = makeReadings({ count: 90 });
      for (const part of [0, 1, 2]) {
        await waitForSubscription(broker);
        await waitUntil(() => lossesOf(logger).length === part, { what: `${part} warnings` });
        // There is no warning if the broker has kept the session.
        assert.equal(proxy.reset(), 1);
        await waitForSubscription(broker, { times: 2 });
        await publishReadings(broker, readings.slice(part * 30, part * 30 + 30));
        await waitForRows(database, part * 30 + 30);
        if (part < 2) await broker.restart();
      }
      await expectStored(database, readings);
      await stopCleanly(logger);
      const losses = lossesOf(logger);
      assert.equal(losses.length, 2);
      for (const loss of losses) assert.match(loss, /^\d\d:\d\d:\d\d \(\d+\.\d s\)$/);
    },
  );
}

Deno.test("run with a spool warns of a session that was lost while the logger was stopped", {
  ignore: lacks("mosquitto"),
}, async () => {
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto({ persistence: false });
  const env = loggerEnv({ database, broker }, { SPOOL_DIRECTORY: directory.path });
  const readings = makeReadings({ count: 80 });
  const [first = [], second = [], forgotten = [], last = []] = [0, 20, 40, 60].map((from) =>
    readings.slice(from, from + 20)
  );
  /** Runs a logger until it has stored the readings, those published before its start included. */
  const run = async (
    { before = [], live = [], times = 1 }: {
      before?: typeof readings;
      live?: typeof readings;
      times?: number;
    },
  ): Promise<string[]> => {
    const rows = await database.countReadings();
    await publishReadings(broker, before);
    await using logger = startLogger(env);
    await waitForSubscription(broker, { times });
    await publishReadings(broker, live);
    await waitForRows(database, rows + before.length + live.length);
    await stopCleanly(logger);
    return lossesOf(logger);
  };
  assert.deepEqual(await run({ live: first }), [], "with a new spool");
  assert.deepEqual(await run({ before: second, times: 2 }), [], "with a kept session");
  await publishReadings(broker, forgotten);
  await broker.restart();
  assert.deepEqual(await run({ live: last }), ["the last run of the logger"]);
  await expectStored(database, [...first, ...second, ...last]);
  assert.deepEqual(await run({ times: 2 }), [], "with the session that replaced it");
});

Deno.test("run without MQTT_CLIENT_ID does not warn of a lost session", {
  ignore: lacks("mosquitto"),
}, async () => {
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto({ persistence: false });
  const env = loggerEnv({ database, broker }, {
    MQTT_CLIENT_ID: "",
    SPOOL_DIRECTORY: directory.path,
  });
  for (let start = 0; start < 2; start++) {
    await using logger = startLogger(env);
    await logger.waitForLine("Connected to MQTT broker");
    const from = logger.lines.length;
    await broker.restart();
    await logger.waitForLine(/MQTT broker .* is available again/, { from });
    await stopCleanly(logger);
    onlyLine(logger, "WARNING", /^MQTT_CLIENT_ID is not set: /);
    assert.deepEqual(
      linesOf(logger, "WARNING").filter((line) => /has lost the session/.test(line)),
      [],
    );
  }
});

for (const isGranted of [false, true]) {
  const name = isGranted
    ? "ended when the shared one is granted"
    : "kept when the shared one is refused";

  Deno.test(`the unshared subscription of an older session is ${name}`, async () => {
    const database = await postgres.createDatabase();
    const shared = "$share/g/sensors/#";
    await using broker = await startScriptedBroker({
      grant: (filter, qos) => isGranted || filter !== shared ? qos : 0x80,
    });
    await using logger = startLogger(loggerEnv({ database, broker }, {
      MQTT_PROTOCOL_VERSION: "4",
      MQTT_SHARED_GROUP: "g",
    }));
    const connection = await broker.subscribed(0);
    if (!isGranted) await logger.waitForLine(`Subscription to '${shared}' was refused: `);
    // Messages of the former subscription are stored.
    const readings = makeReadings({ count: 1 });
    readings.forEach((reading) => connection.publish(1, toPayload(reading), { qos: 1 }));
    await connection.waitForAcknowledgements(1);
    await connection.settled();
    await waitForRows(database, readings.length);
    await expectStored(database, readings);
    const ended = connection.packets.flatMap((packet) =>
      packet.cmd === "unsubscribe" ? packet.unsubscriptions : []
    );
    assert.deepEqual(ended, isGranted ? ["sensors/#"] : []);
    await stopCleanly(logger);
  });
}

Deno.test("run warns once of an unavailable broker, however often it connects to the next one", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto();
  await using proxy = await startProxy(broker);
  const dead = `${LOOPBACK}:${findFreePort()}`;
  await using logger = startLogger(loggerEnv({ database, broker: proxy }, {
    MQTT_HOST: `${dead},${proxy.host}:${proxy.port}`,
  }));
  const readings = makeReadings({ count: 80 });
  for (let times = 1; times <= 4; times++) {
    await waitForSubscription(broker, { times });
    await publishReadings(broker, readings.slice(20 * (times - 1), 20 * times));
    await waitForRows(database, 20 * times);
    if (times < 4) assert.equal(proxy.reset(), 1);
  }
  await expectStored(database, readings);
  await stopCleanly(logger);
  const warning = onlyLine(logger, "WARNING", /Using the next one\.$/);
  assert.ok(warning.startsWith(`MQTT broker '${dead}': connection refused `), warning);
});
