/**
 * Faults of the broker under a steady load of QoS 1 and QoS 2: stopped, killed, frozen, restarted
 * with and without its store, refusing the logger for a while, and replaced by a server that is not
 * a broker.
 */
import assert from "node:assert/strict";
import { loggerEnv, type LoggerProcess, startLogger } from "../support/logger_process.ts";
import { waitUntil } from "../support/poll.ts";
import { startProxy, type TcpProxy } from "../support/proxy.ts";
import { publishReadings } from "../support/publisher.ts";
import { expectStored, formatSeconds, makeReadings } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  createSession,
  slowInserts,
  startTellingMosquitto,
  stopCleanly,
  stopWhenDrained,
  usePostgres,
  waitForRows,
  waitForSubscription,
} from "../support/harness.ts";
import {
  ENDED,
  expectOutages,
  findMissing,
  outagesOf,
  SHORT_TIMEOUTS,
  startLoad,
  waitForOutageEnds,
} from "./broker_load.ts";
import { type Misbehavior, startMisbehavingBroker } from "../fakes/misbehaving_broker.ts";
import { lacks } from "../support/programs.ts";

const postgres = usePostgres();

const DEBUG = { APPLICATION_LOG_LEVEL: "DEBUG" };

/** CONNACK of MQTT 5: accepted, new session, no properties. */
const ACCEPTED = [0x20, 3, 0, 0, 0];

/** Answers of a server that is not a broker, and the reason that the logger logs. */
const MISBEHAVIORS: readonly (Misbehavior & { readonly reason: RegExp })[] = [
  { answer: "HTTP/1.1 400 Bad Request\r\n\r\n", reason: /not MQTT/ },
  { closes: true, reason: ENDED },
  { answer: [0x20, 3, 0, 0x89, 0], reason: /busy/ },
  // Half a CONNACK, and nothing after it.
  { answer: ACCEPTED.slice(0, 3), reason: /no answer in time/ },
];

/** The timestamps of the messages that the logger has received. The level must be DEBUG. */
function receivedSeconds(logger: LoggerProcess): Set<string> {
  const received = /Received on .*"timestamp": (\d+\.\d+)/;
  return new Set(logger.lines.flatMap((line) => received.exec(line)?.[1] ?? []));
}

/** Disconnects the logger, and refuses all further connections. */
async function cutOff(proxy: TcpProxy): Promise<void> {
  await proxy.refuse();
  assert.equal(proxy.reset(), 1);
}

/** Waits for a failed connection attempt with a matching reason. The level must be DEBUG. */
async function waitForAttempt(
  logger: LoggerProcess,
  reason: RegExp,
  from: number = logger.lines.length,
): Promise<void> {
  const pattern = new RegExp(`Cannot connect to MQTT broker .*: .*(${reason.source})`);
  await logger.waitForLine(pattern, { from, timeoutMs: 180_000 });
}

Deno.test("run keeps every reading when the broker is stopped three times, once with PostgreSQL", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await slowInserts(database, 0.05);
  await using load = await startLoad(database);
  for (const together of [false, true, false]) {
    await load.waitForStored(50);
    if (together) await postgres.server.stop();
    await load.outage(() => load.broker.stop());
    await load.waitForDue(50);
    await load.recovery(() => load.broker.start());
    if (together) await postgres.server.start();
  }
  await load.finish();
  expectOutages(load.logger, 3, ENDED);
  for (const { connections } of load.daemons) assert.equal(connections, 4);
});

/**
 * Mosquitto acknowledges before it saves, which it does every half hour by default. A kill loses
 * the messages that it acknowledged after the last save and had not delivered; the publisher no
 * longer has them, and the logger never received them. All other messages must be in the table:
 * saved ones, delivered ones, unacknowledged ones that were published again, and later ones.
 */
Deno.test("run stores every reading that the broker did not lose when the broker is killed", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  // With MQTT 3.1.1, the connection holds only the messages in flight; the others are queued.
  const env = { ...DEBUG, MQTT_PROTOCOL_VERSION: "4" };
  await using load = await startLoad(database, { env });
  const { broker, logger } = load;
  logger.signal("SIGSTOP");
  const early = [...load.daemons];
  await Promise.all(early.map((daemon) => daemon.waitForAcknowledged(150)));
  await Promise.all(early.map((daemon) => daemon.finish()));
  await broker.save();
  const late = load.startDaemons();
  await Promise.all(late.map((daemon) => daemon.waitForAcknowledged(150)));
  await load.outage(async () => {
    await broker.kill();
    logger.signal("SIGCONT");
  });
  await load.recovery(() => broker.start());
  await load.waitForStored(100);
  // Again, while the logger is storing, with the store that was saved before the first kill.
  await load.outage(() => broker.kill());
  const dueAtSecond = late.map(({ due }) => due);
  await load.recovery(() => broker.start());
  await load.waitForStored(100);

  const published = await load.finishDaemons();
  await stopWhenDrained(logger, broker);
  const forgotten = await findMissing(database, published.flat());
  assert.ok(forgotten.size >= 300, `the broker has forgotten only ${forgotten.size} readings`);
  const received = receivedSeconds(logger);
  for (const [index, readings] of published.entries()) {
    const lastKill = dueAtSecond[index - early.length] ?? 0;
    const wrong = readings.filter((reading, position) =>
      forgotten.has(reading) &&
      (position >= lastKill || received.has(formatSeconds(reading.timeUs)))
    );
    assert.deepEqual(wrong, [], `missing from daemon ${index}`);
  }
  await expectStored(database, published.flat().filter((reading) => !forgotten.has(reading)));
  expectOutages(logger, 2, ENDED);
});

for (const spool of [true, false]) {
  const variant = spool ? "" : " without a spool";
  Deno.test(`run${variant} keeps its in-flight messages when the broker loses them repeatedly`, {
    ignore: lacks("mosquitto"),
  }, async () => {
    using directory = withTemporaryDirectory();
    const database = await postgres.createDatabase();
    await using broker = await startTellingMosquitto({ maxInflightMessages: 1000 });
    await using logger = startLogger(loggerEnv({ database, broker }, {
      ...DEBUG,
      ...(spool && { SPOOL_DIRECTORY: directory.path }),
    }));
    await logger.waitForLine("Connected to database");
    await using lock = await database.connect();
    await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
    const restarts = [true, false, false, true, false];
    const readings = makeReadings({ count: 100 * restarts.length });
    for (const [round, keepStore] of restarts.entries()) {
      // With its store, Mosquitto knows the subscription before the logger renews it.
      await waitForSubscription(broker);
      const part = readings.slice(100 * round, 100 * round + 100);
      await publishReadings(broker, part, { qos: round % 2 === 0 ? 2 : 1 });
      await waitUntil(() => receivedSeconds(logger).size === 100 * (round + 1), {
        what: `all readings of round ${round} to be in flight`,
      });
      await broker.restart({ keepStore });
    }
    await waitForSubscription(broker);
    assert.equal(await database.countReadings(), 0);
    const forgotten = logger.lines.filter((line) => /Connected to MQTT .* new session/.test(line));
    // Once at the start, and once for each lost store; a doubtful connection logs two lines.
    assert.ok(forgotten.length >= 1 + restarts.filter((keepStore) => !keepStore).length);
    await lock.query("ROLLBACK");
    await waitForRows(database, readings.length);
    await expectStored(database, readings);
    await waitForOutageEnds(logger);
    const { stored } = await stopCleanly(logger);
    assert.equal(stored, readings.length);
    // An outage that began before the end of the last one was logged belongs to that one.
    const outages = outagesOf(logger).length;
    assert.ok(outages >= 1 && outages <= restarts.length);
    expectOutages(logger, outages, ENDED);
  });
}

Deno.test("run keeps every reading when the broker is frozen for longer than the keepalive", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using load = await startLoad(database, { env: { ...DEBUG, ...SHORT_TIMEOUTS } });
  const silent = /DEBUG .*Cannot connect to MQTT broker .*: no answer in time/;
  const attempts = (): number => load.logger.lines.filter((line) => silent.test(line)).length;
  try {
    await load.outage(() => load.broker.signal("SIGSTOP"));
    // The kernel accepts connections for the frozen broker, which later finds them closed.
    await waitUntil(() => attempts() >= 2, { what: "two failed attempts" });
    await load.recovery(() => load.broker.signal("SIGCONT"));
  } finally {
    // The daemons cannot disconnect from a frozen broker.
    load.broker.signal("SIGCONT");
  }
  await load.waitForStored(100);
  await load.finish();
  expectOutages(load.logger, 1, /no longer answers/);
});

Deno.test("run reports one outage when the broker refuses it for changing reasons", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  const users = { logger: "right" };
  // The daemons connect without a password.
  const broker = { users, config: ["allow_anonymous true"] };
  const env = {
    ...DEBUG,
    MQTT_CLIENT_USER: "logger",
    MQTT_CLIENT_PASSWORD: "right",
    // Mosquitto 2.0.11 may crash when it reads other passwords while a session of MQTT 5, which
    // expires some day, has no connection.
    MQTT_PROTOCOL_VERSION: "4",
  };
  await using load = await startLoad(database, { broker, env, proxied: true });
  const { logger, proxy } = load;
  await load.outage(() => cutOff(proxy));
  await load.broker.setUsers({ logger: "another" });
  await waitUntil(() => load.broker.logLines.some((line) => line.startsWith("Reloading config")), {
    what: "the broker to read the other password",
  });
  await waitForAttempt(logger, /connection refused/);
  await proxy.allow();
  await waitForAttempt(logger, /not authorized/);
  await proxy.refuse();
  await waitForAttempt(logger, /connection refused/);
  await proxy.allow();
  await load.recovery(() => load.broker.setUsers(users));
  await load.waitForStored(100);
  await load.finish();
  expectOutages(logger, 1, ENDED);
});

Deno.test(
  "run survives any answer from a server that is not a broker, and then reconnects",
  {
    ignore: lacks("mosquitto"),
  },
  async () => {
    const database = await postgres.createDatabase();
    await using load = await startLoad(database, {
      env: { ...DEBUG, ...SHORT_TIMEOUTS },
      proxied: true,
    });
    const { logger, proxy } = load;
    await load.outage(() => cutOff(proxy));
    for (const { reason, ...misbehavior } of MISBEHAVIORS) {
      const from = logger.lines.length;
      await using broker = await startMisbehavingBroker(proxy.port, misbehavior);
      await waitUntil(() => broker.answered > 0, { what: "an attempt to connect" });
      await waitForAttempt(logger, reason, from);
    }
    await load.recovery(() => proxy.allow());
    await load.waitForStored(100);
    await load.finish();
    expectOutages(logger, 1, ENDED);
  },
);

Deno.test("run logs once that a broker accepts and closes its connection repeatedly", {
  ignore: lacks("mosquitto"),
}, async () => {
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto();
  await createSession(broker);
  await using proxy = await startProxy(broker);
  await proxy.refuse();
  await using fickle = await startMisbehavingBroker(proxy.port, {
    answer: ACCEPTED,
    closes: true,
  });
  await using logger = startLogger(loggerEnv({ database, broker: proxy }, {
    SPOOL_DIRECTORY: directory.path,
  }));
  const readings = makeReadings({ count: 200 });
  await publishReadings(broker, readings);
  await waitUntil(() => fickle.answered >= 5, { what: "five accepted connections" });
  await fickle[Symbol.asyncDispose]();
  await proxy.allow();
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  await waitForOutageEnds(logger);
  assert.equal((await stopCleanly(logger)).stored, readings.length);
  expectOutages(logger, 1, ENDED);
});
