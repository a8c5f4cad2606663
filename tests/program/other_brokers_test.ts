/**
 * Delivery by brokers other than Mosquitto: RabbitMQ's MQTT plugin, which speaks 3.1.1, grants QoS 1
 * and closes the connection on MQTT 5, and Aedes, which speaks 3.1.1 and refuses 5.
 */
import assert from "node:assert/strict";
import { startAedes } from "../support/aedes_broker.ts";
import { type Daemon, startDaemon } from "../support/daemon.ts";
import {
  type LoggerEnv,
  loggerEnv,
  type LoggerProcess,
  runLogger,
  startLogger,
} from "../support/logger_process.ts";
import type { BrokerAddress } from "../support/mqtt_client.ts";
import { waitUntil } from "../support/poll.ts";
import { startProxy } from "../support/proxy.ts";
import { publishReadings } from "../support/publisher.ts";
import { publishReadingsFast } from "../support/publisher_process.ts";
import { type RabbitMqBroker, startRabbitMq } from "../support/rabbitmq.ts";
import { expectStored, makeReadings, type Reading, toPayload } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  createSession,
  expectNothingLeft,
  linesOf,
  slowInserts,
  stopCleanly,
  usePostgres,
  waitForRows,
} from "../support/harness.ts";
import { startScriptedBroker } from "../fakes/scripted_broker.ts";
import { findProgram, lacks, type ProgramName } from "../support/programs.ts";

const postgres = usePostgres({ settings: { fsync: "on" } });

/** One broker for all tests, because its start takes long. */
let rabbit: RabbitMqBroker | undefined;

Deno.test.beforeAll(async () => {
  if (findProgram("rabbitmq-server") !== null) rabbit = await startRabbitMq();
});
Deno.test.afterAll(async () => {
  await rabbit?.[Symbol.asyncDispose]();
});

function getRabbitMq(): RabbitMqBroker {
  return rabbit ?? assert.fail("RabbitMQ did not start");
}

/** A kind of broker. */
interface Kind {
  readonly name: string;
  /** The programs that it needs. */
  readonly programs: readonly ProgramName[];
  /** Parts of the log lines about the connection and the granted QoS. */
  readonly logs: readonly string[];
  /** QoS to publish with. */
  readonly qos: readonly (1 | 2)[];
  /** Returns the broker for one test; the stack disposes all that is started for it. */
  open(stack: AsyncDisposableStack): Promise<BrokerAddress>;
}

const KINDS: readonly Kind[] = [{
  name: "RabbitMQ",
  programs: ["rabbitmq-server"],
  logs: ["(MQTT 3.1.1, ", "granted QoS 1 for"],
  qos: [1, 2],
  open: () => Promise.resolve(getRabbitMq()),
}, {
  name: "Aedes",
  programs: [],
  logs: ["(MQTT 3.1.1, "],
  // With QoS 2, Aedes resends acknowledged messages; see `AedesBroker`.
  qos: [1],
  open: async (stack) => stack.use(await startAedes()),
}];

/** Client id, filter and topic that distinguish the tests that share a broker. */
interface Names {
  readonly env: LoggerEnv;
  readonly session: { readonly clientId: string; readonly filter: string };
  readonly topic: string;
}

function namesFor(test: string): Names {
  const session = { clientId: `kraken-${test}`, filter: `sensors/${test}/#` };
  const env = { MQTT_CLIENT_ID: session.clientId, MQTT_TOPIC: session.filter };
  return { env, session, topic: `sensors/${test}/x` };
}

function countReceived(logger: LoggerProcess): number {
  return logger.lines.filter((line) => line.includes("Received on")).length;
}

for (const { name, programs, logs, qos: levels, open } of KINDS) {
  for (const qos of levels) {
    Deno.test(
      `run stores all that is published to ${name} with QoS ${qos}, also if it is killed and restarted`,
      {
        ignore: lacks(...programs),
      },
      async () => {
        await using stack = new AsyncDisposableStack();
        const broker = await open(stack);
        const database = await postgres.createDatabase();
        // So that messages are in flight when the logger is killed.
        await slowInserts(database, 0.1);
        const { env: names, session, topic } = namesFor(`kill${qos}`);
        await createSession(broker, session);
        const env = loggerEnv({ database, broker }, names);
        const readings = makeReadings({ count: 800 });
        {
          await using logger = startLogger(env);
          for (const text of logs) await logger.waitForLine(text);
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
        await using logger = startLogger(env);
        await logger.waitForLine("(MQTT 3.1.1, session resumed)");
        await waitForRows(database, readings.length);
        await expectStored(database, readings);
        assert.ok((await stopCleanly(logger)).stored > 0);
        await using again = startLogger(env);
        await expectNothingLeft(again, broker, topic);
      },
    );
  }

  Deno.test(`run receives from ${name} while PostgreSQL is stopped, and stores afterwards`, {
    ignore: lacks(...programs),
  }, async () => {
    await using stack = new AsyncDisposableStack();
    const broker = await open(stack);
    using directory = withTemporaryDirectory();
    const database = await postgres.createDatabase();
    const { env: names, session, topic } = namesFor("away");
    await createSession(broker, session);
    const env = loggerEnv({ database, broker }, { ...names, SPOOL_DIRECTORY: directory.path });
    // More than fits into memory, and than the broker delivers without acknowledgements.
    const readings = makeReadings({ count: 12_000 });
    await postgres.server.stop();
    try {
      await using logger = startLogger({ ...env, APPLICATION_LOG_LEVEL: "DEBUG" });
      await logger.waitForLine("Connected to MQTT broker");
      await logger.waitForLine(/Database .* is not available/);
      await publishReadingsFast(broker, readings, { topic, qos: 1 });
      await waitUntil(() => countReceived(logger) >= readings.length, {
        what: "all readings to be delivered",
        intervalMs: 250,
        timeoutMs: 180_000,
      });
      const { received, spooled } = await stopCleanly(logger);
      assert.deepEqual([received, spooled], [readings.length, readings.length]);
    } finally {
      await postgres.server.start();
    }
    assert.equal(await database.countReadings(), 0);
    await using logger = startLogger(env);
    await waitForRows(database, readings.length);
    await expectStored(database, readings);
    const { found, stored, spooled } = await stopCleanly(logger);
    assert.deepEqual([found, stored, spooled], [readings.length, readings.length, 0]);
    await using again = startLogger(env);
    await expectNothingLeft(again, broker, topic);
  });

  Deno.test(`run keeps every reading when the network to ${name} is cut`, {
    ignore: lacks(...programs),
  }, async () => {
    await using stack = new AsyncDisposableStack();
    const broker = await open(stack);
    const database = await postgres.createDatabase();
    // So that messages are in flight when a connection ends, and are redelivered.
    await slowInserts(database, 0.3);
    const { env: names, session, topic } = namesFor("cut");
    await createSession(broker, session);
    const readings = makeReadings({ count: 4_000 });
    await publishReadingsFast(broker, readings.slice(0, 3_500), { topic, qos: 1 });
    await using proxy = await startProxy(broker);
    // A message has about 200 bytes and its acknowledgement 4: all cuts together let at most 700
    // messages pass.
    const cuts = [
      { bytes: 20_000, direction: "toClient" },
      { bytes: 400, direction: "toServer" },
      { bytes: 100_000, direction: "toClient" },
    ] as const;
    const cut = ({ bytes, direction }: (typeof cuts)[number]): Promise<void> =>
      proxy.cutAfter(bytes, direction);
    let next = cut(cuts[0]);
    await using logger = startLogger(loggerEnv({ database, broker: proxy }, names));
    for (const following of cuts.slice(1)) {
      await next;
      next = cut(following);
    }
    await next;
    await waitForRows(database, 3_500);
    // This time the network is down until something was published.
    await proxy.refuse();
    const from = logger.lines.length;
    proxy.reset();
    await publishReadings(broker, readings.slice(3_500), { topic, qos: 1 });
    assert.equal(proxy.openConnections, 0);
    assert.equal(await database.countReadings(), 3_500);
    await proxy.allow();
    await waitForRows(database, readings.length);
    await expectStored(database, readings);
    await logger.waitForLine(/MQTT broker .* is available again/, { from });
    const { stored, redelivered } = await stopCleanly(logger);
    assert.equal(stored, readings.length);
    assert.ok(redelivered > 0, "no message in flight was redelivered");
    await using again = startLogger(loggerEnv({ database, broker }, names));
    await expectNothingLeft(again, broker, topic);
  });
}

/** Publishes different readings with each QoS during the test. */
interface Load extends AsyncDisposable {
  /** Readings that the broker has confirmed. */
  readonly confirmed: number;
  /** Publishes the readings that are due; returns them when the broker has confirmed all. */
  finish(): Promise<readonly Reading[]>;
}

function startDaemons(broker: BrokerAddress, topic: string): Load {
  const parts = ([1, 2] as const).map((qos) => {
    // The times of the two series are years apart.
    const startTimeUs = BigInt(qos) * 1_000_000_000_000_000n;
    const readings = makeReadings({ count: 60_000, startTimeUs, seed: qos });
    const message: Parameters<typeof startDaemon>[1]["message"] = (index) => {
      const reading = readings[index] ?? assert.fail("the test takes too long for its readings");
      return { topic, payload: toPayload(reading) };
    };
    const daemon: Daemon = startDaemon(broker, { qos, rate: 500, message });
    return { daemon, readings };
  });
  return {
    get confirmed(): number {
      return parts.reduce((sum, { daemon }) => sum + daemon.acknowledged, 0);
    },
    finish: async () => {
      const published = parts.map(async ({ daemon, readings }) =>
        readings.slice(0, await daemon.finish())
      );
      return (await Promise.all(published)).flat();
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(parts.map(({ daemon }) => daemon[Symbol.asyncDispose]()));
    },
  };
}

Deno.test(
  "run stores all messages that RabbitMQ had confirmed to publishers before it was killed",
  {
    ignore: lacks("rabbitmq-server"),
  },
  async () => {
    const broker = getRabbitMq();
    const database = await postgres.createDatabase();
    const { env: names, session, topic } = namesFor("crash");
    await createSession(broker, session);
    const env = loggerEnv({ database, broker }, names);
    await using lock = await database.connect();
    await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
    await using logger = startLogger({ ...env, APPLICATION_LOG_LEVEL: "DEBUG" });
    await logger.waitForLine("Connected to MQTT broker");
    await using load = startDaemons(broker, topic);
    await waitUntil(() => load.confirmed >= 2_500, {
      what: "RabbitMQ to confirm",
      timeoutMs: 180_000,
    });
    await broker.kill();
    const { confirmed } = load;
    await logger.waitForLine(/MQTT broker .* is not available/);
    const received = countReceived(logger);
    assert.ok(received > 0 && received < confirmed, `${received} of ${confirmed} were handed over`);
    // Storing in-flight messages does not need the broker.
    await lock.query("ROLLBACK");
    await waitForRows(database, received);
    assert.equal(await database.countReadings(), received);
    await broker.start();
    await logger.waitForLine(/MQTT broker .* is available again/, { timeoutMs: 180_000 });
    await waitForRows(database, confirmed + 100);
    const readings = await load.finish();
    await waitForRows(database, readings.length);
    await expectStored(database, readings);
    assert.equal((await stopCleanly(logger)).stored, readings.length);
    assert.deepEqual(linesOf(logger, "WARNING").filter((line) => line.includes("session")), []);
    await using again = startLogger(env);
    await expectNothingLeft(again, broker, topic);
  },
);

Deno.test("run continues with the queued messages after a restart of RabbitMQ", {
  ignore: lacks("rabbitmq-server"),
}, async () => {
  const broker = getRabbitMq();
  const database = await postgres.createDatabase();
  const { env: names, topic } = namesFor("restart");
  const env = loggerEnv({ database, broker }, names);
  await using logger = startLogger(env);
  await logger.waitForLine("granted QoS 1 for");
  const readings = makeReadings({ count: 200 });
  await publishReadings(broker, readings.slice(0, 100), { topic, qos: 1 });
  await waitForRows(database, 100);
  await broker.stop();
  await logger.waitForLine("is not available");
  await broker.start();
  await logger.waitForLine("is available again", { timeoutMs: 180_000 });
  await publishReadings(broker, readings.slice(100), { topic, qos: 1 });
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  await stopCleanly(logger);
  const { code, stdout } = await runLogger(["check"], env);
  assert.match(stdout, /connected with MQTT 3\.1\.1/);
  assert.equal(code, 0, stdout);
  await using again = startLogger(env);
  await expectNothingLeft(again, broker, topic);
});

Deno.test("the logger can use the user that the commands of docs/brokers.md create", {
  ignore: lacks("rabbitmq-server"),
}, async () => {
  const broker = getRabbitMq();
  await broker.createDocumentedUser();
  const database = await postgres.createDatabase();
  const { env: names, topic } = namesFor("user");
  const env = loggerEnv({ database, broker }, {
    ...names,
    MQTT_CLIENT_USER: "kraken",
    MQTT_CLIENT_PASSWORD: "PASSWORD",
  });
  await using logger = startLogger(env);
  await logger.waitForLine("granted QoS 1 for");
  const readings = makeReadings({ count: 10 });
  await publishReadings(broker, readings, { topic, qos: 1 });
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  await stopCleanly(logger);
});

Deno.test("a broker that closes a connection of MQTT 5 is offered it again at the next connection", async () => {
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
