/**
 * Brokers that restart, are unavailable, refuse the logger or speak an older protocol.
 */
import assert from "node:assert/strict";
import { startAedes } from "../support/aedes_broker.ts";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { startMosquitto } from "../support/mosquitto.ts";
import { waitUntil } from "../support/poll.ts";
import { findFreePort, LOOPBACK } from "../support/ports.ts";
import { startProxy } from "../support/proxy.ts";
import { publishReadings } from "../support/publisher.ts";
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

Deno.test("run keeps every reading when the broker restarts under load", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto();
  await createSession(broker);
  await using logger = startLogger(loggerEnv({ database, broker }));
  await logger.waitForLine("Connected to MQTT broker");
  const readings = makeReadings({ count: 60_000 });
  const enough = new AbortController();
  const publishing = publishReadings(broker, readings, {
    rate: 1000,
    clientId: "daemon",
    reconnectMs: 50,
    signal: enough.signal,
  });
  let published;
  try {
    await waitForRows(database, 500);
    await broker.restart();
    await waitForRows(database, await database.countReadings() + 500);
  } finally {
    enough.abort();
    published = await publishing;
  }
  assert.ok(published < readings.length, "the restart was not under load");
  await waitForRows(database, published);
  await expectStored(database, readings.slice(0, published));
  await stopCleanly(logger);
  onlyLine(
    logger,
    "ERROR",
    /^MQTT broker '127.0.0.1:\d+' is not available: .*Retrying until it is/,
  );
  onlyLine(logger, "INFO", /^MQTT broker '127.0.0.1:\d+' is available again after \d+\.\d s\.$/);
  assert.equal(countConnections(broker), 1);
});

Deno.test("run receives the messages that the broker queued while the logger was stopped", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const env = loggerEnv({ database, broker });
  const readings = makeReadings({ count: 600 });
  for (const part of [0, 1, 2]) {
    await publishReadings(broker, readings.slice(part * 200, part * 200 + 200));
    if (part === 1) await broker.restart();
    await using logger = startLogger(env);
    await waitForRows(database, part * 200 + 200);
    await stopCleanly(logger);
  }
  await expectStored(database, readings);
});

Deno.test("run tries the brokers in turn, and logs which of them failed", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const dead = `${LOOPBACK}:${findFreePort()}`;
  const env = loggerEnv({ database, broker }, {
    MQTT_HOST: `${dead}, ${LOOPBACK}:${broker.port}`,
    MQTT_PORT: "1",
  });
  await using logger = startLogger(env);
  await logger.waitForLine("Connected to MQTT broker");
  const readings = makeReadings({ count: 50 });
  await publishReadings(broker, readings);
  await waitForRows(database, readings.length);
  await stopCleanly(logger);
  assert.match(
    onlyLine(logger, "WARNING", /^MQTT broker/),
    new RegExp(`'${dead}': connection refused`),
  );
  assert.deepEqual(linesOf(logger, "ERROR"), []);
});

Deno.test("run uses the next broker when one is killed, and returns when that one is killed", async () => {
  const database = await postgres.createDatabase();
  await using first = await startBroker();
  await using second = await startBroker();
  for (const broker of [first, second]) await createSession(broker);
  const env = loggerEnv({ database, broker: first }, {
    MQTT_HOST: [first, second].map(({ host, port }) => `${host}:${port}`).join(","),
  });
  await using logger = startLogger(env);
  const readings = makeReadings({ count: 150 });
  for (const [index, broker] of [first, second, first].entries()) {
    await publishReadings(broker, readings.slice(index * 50, index * 50 + 50));
    await waitForRows(database, index * 50 + 50);
    await broker.stop();
    if (index === 1) await first.start();
  }
  await expectStored(database, readings);
  await logger.stop();
});

Deno.test("run logs that the broker refuses its password, and connects when it is corrected", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  const daemon = { username: "daemon", password: "d" };
  await using broker = await startTellingMosquitto({ users: { daemon: "d", logger: "old" } });
  await using logger = startLogger(loggerEnv({ database, broker }, {
    MQTT_CLIENT_USER: "logger",
    MQTT_CLIENT_PASSWORD: "new",
  }));
  await logger.waitForLine(/MQTT broker .* is not available: not authorized \(.*password/);
  await broker.setUsers({ daemon: "d", logger: "new" });
  await waitForSubscription(broker);
  const readings = makeReadings({ count: 50 });
  await publishReadings(broker, readings, daemon);
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  await stopCleanly(logger);
  assert.equal(linesOf(logger, "ERROR").length, 1);
  onlyLine(logger, "INFO", /^MQTT broker .* is available again after/);
});

Deno.test("run uses the next broker when one refuses its password (3.1.1)", async () => {
  const database = await postgres.createDatabase();
  await using refusing = await startBroker({ users: { logger: "other" } });
  await using accepting = await startBroker({ users: { logger: "right" } });
  const env = loggerEnv({ database, broker: refusing }, {
    MQTT_HOST: [refusing, accepting].map(({ host, port }) => `${host}:${port}`).join(","),
    MQTT_CLIENT_USER: "logger",
    MQTT_CLIENT_PASSWORD: "right",
    MQTT_PROTOCOL_VERSION: "4",
  });
  await using logger = startLogger(env);
  await logger.waitForLine(`Connected to MQTT broker '127.0.0.1:${accepting.port}'`);
  const warning = onlyLine(logger, "WARNING", /^MQTT broker/);
  assert.match(warning, new RegExp(`${refusing.port}': .*wrong user name or password`));
  await stopCleanly(logger);
});

Deno.test("run without MQTT_CLIENT_ID works, and warns once that messages are lost", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await using logger = startLogger(loggerEnv({ database, broker }, { MQTT_CLIENT_ID: "" }));
  await logger.waitForLine("Connected to MQTT broker");
  const [reading, ...others] = makeReadings({ count: 20 });
  assert.ok(reading);
  // The log does not show when the subscription is granted, but a retained reading waits for it.
  await publishReadings(broker, [reading], { retain: true });
  await waitForRows(database, 1);
  await publishReadings(broker, others);
  await waitForRows(database, 20);
  await expectStored(database, [reading, ...others]);
  await stopCleanly(logger);
  assert.match(onlyLine(logger, "WARNING", /./), /^MQTT_CLIENT_ID is not set: .*Messages are lost/);
});

Deno.test("run falls back to MQTT 3.1.1 if a broker refuses 5", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startAedes();
  await createSession(broker);
  await using logger = startLogger(loggerEnv({ database, broker }));
  await logger.waitForLine("(MQTT 3.1.1, session resumed)");
  const readings = makeReadings({ count: 100 });
  // With QoS 2, Aedes omits the PUBREL if a PUBREC arrives very soon.
  await publishReadings(broker, readings, { qos: 1 });
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  assert.deepEqual(linesOf(logger, "ERROR"), []);
  await stopCleanly(logger);
  await using forced = startLogger(
    loggerEnv({ database, broker }, { MQTT_PROTOCOL_VERSION: "5" }),
  );
  await forced.waitForLine("is not available: the broker does not speak this version of MQTT");
  await stopCleanly(forced);
});

Deno.test("repeated reconnections during an outage of the database store nothing twice", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using broker = await startMosquitto({ maxInflightMessages: 1000 });
  await createSession(broker);
  await using proxy = await startProxy(broker);
  await postgres.server.stop();
  const env = loggerEnv({ database, broker: proxy }, { APPLICATION_LOG_LEVEL: "DEBUG" });
  await using logger = startLogger(env);
  const readings = makeReadings({ count: 1000 });
  const isHandedOver = (): boolean =>
    logger.lines.filter((line) => line.includes("Received on")).length === readings.length;
  try {
    await logger.waitForLine("Connected to MQTT broker");
    await publishReadings(broker, readings);
    await waitUntil(isHandedOver, { what: "all readings to be in flight" });
    for (const round of [1, 2, 3]) {
      const handedOver = proxy.bytesToClient;
      assert.equal(proxy.reset(), 1);
      await logger.waitForLine("Connected to MQTT broker", { from: logger.lines.length });
      assert.ok(countConnections(broker) > round);
      // The broker delivers all messages again.
      await waitUntil(() => proxy.bytesToClient - handedOver > 100 * readings.length);
    }
  } finally {
    await postgres.server.start();
  }
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  const counts = await stopCleanly(logger);
  assert.deepEqual([counts.received, counts.stored, counts.duplicates], [1000, 1000, 0]);
  assert.ok(counts.redelivered >= 1000, `${counts.redelivered} redelivered`);
  const complaints = /protocol error|unknown packet|malformed/i;
  assert.deepEqual(broker.logLines.filter((line) => complaints.test(line)), []);
  await using again = startLogger(loggerEnv({ database, broker }));
  await expectNothingLeft(again, broker);
});
