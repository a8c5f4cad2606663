/**
 * The guarantees of the program, each with a check and with a way to break it: the check must pass on
 * the unchanged program, and fail on the broken one.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, type LoggerOptions, startLogger } from "../support/logger_process.ts";
import { delay, waitUntil } from "../support/poll.ts";
import { publishPayloads, publishReadings } from "../support/publisher.ts";
import { publishReadingsFast } from "../support/publisher_process.ts";
import { expectStored, makeReadings, toPayload } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  ACKNOWLEDGED_BEFORE_COMMIT,
  ACKNOWLEDGED_BEFORE_DISK,
  type Breakage,
} from "../support/broken_sources.ts";
import {
  countConnections,
  createSession,
  expectNothingLeft,
  type SharedPostgres,
  startTellingMosquitto,
  stopCleanly,
  waitForBlockedInsert,
  waitForRows,
  waitForSubscription,
} from "../support/harness.ts";
import { startScriptedBroker } from "../fakes/scripted_broker.ts";
import { lacks, type ProgramName } from "../support/programs.ts";

/** The program to check: that of the project, or a deliberately broken one. */
export interface Program {
  readonly options: LoggerOptions;
  /** How long to wait; a broken program never does what is awaited. */
  readonly timeoutMs: number;
}

/** A guarantee, how it is checked, and how to break it. */
export interface Guarantee {
  /** Completes "run …". */
  readonly name: string;
  /** The programs that the check needs. */
  readonly programs?: readonly ProgramName[];
  /** Rejects when the guarantee does not hold. */
  readonly check: (program: Program) => Promise<void>;
  /** The defect of the broken program; completes "… is noticed". */
  readonly breakage: string;
  readonly breakages: readonly Breakage[];
  /** The error of the check on the broken program. */
  readonly complaint: RegExp;
  /** `true`: both its check and the counter-test are of the second tier. */
  readonly isSlow?: boolean;
}

/**
 * Kills the logger when it has received all messages and the database is unavailable. Before that, it
 * has `actMs` to process the messages.
 */
function checkKill(
  postgres: SharedPostgres,
  { spool, actMs }: { readonly spool: boolean; readonly actMs: number },
): Guarantee["check"] {
  return async ({ options, timeoutMs }) => {
    using directory = withTemporaryDirectory();
    const database = await postgres.createDatabase();
    await using broker = await startBroker();
    await createSession(broker);
    const env = loggerEnv({ database, broker }, {
      APPLICATION_LOG_LEVEL: "DEBUG",
      ...(spool && { SPOOL_DIRECTORY: directory.path }),
    });
    const readings = makeReadings({ count: 15 });
    await publishReadings(broker, readings.slice(0, 14));
    await postgres.server.stop();
    try {
      await using logger = startLogger(env, options);
      const received = (): number =>
        logger.lines.filter((line) => line.includes("Received on")).length;
      await waitUntil(() => received() === 14, { what: "14 messages in flight" });
      await delay(actMs);
      // When the next message has arrived, packets for the earlier ones have been sent.
      await publishReadings(broker, readings.slice(14));
      await waitUntil(() => received() === 15, { what: "15 messages in flight" });
      await logger.kill();
    } finally {
      await postgres.server.start();
    }
    await using _again = startLogger(env, options);
    await waitForRows(database, readings.length, { timeoutMs });
    await expectStored(database, readings);
  };
}

/** Registers the test that the unchanged program has the guarantee. */
export function checkGuarantee({ name, programs = [], check }: Guarantee): void {
  Deno.test(`run ${name}`, { ignore: lacks(...programs) }, async () => {
    await check({ options: {}, timeoutMs: 180_000 });
  });
}

/** All guarantees, checked with the given PostgreSQL. */
export function listGuarantees(postgres: SharedPostgres): readonly Guarantee[] {
  return [{
    name: "loses nothing when it is killed before the commit",
    check: checkKill(postgres, { spool: false, actMs: 0 }),
    breakage: "an acknowledgement before the commit",
    breakages: ACKNOWLEDGED_BEFORE_COMMIT,
    complaint: /Waiting for 15 rows/,
  }, {
    name: "loses nothing when it is killed while messages go to the spool",
    check: checkKill(postgres, { spool: true, actMs: 300 }),
    breakage: "an acknowledgement before the messages are on disk",
    breakages: ACKNOWLEDGED_BEFORE_DISK,
    complaint: /Waiting for 15 rows/,
  }, {
    name: "loses nothing in the spool when it is killed before the commit of the database",
    check: async ({ options, timeoutMs }) => {
      using directory = withTemporaryDirectory();
      const database = await postgres.createDatabase();
      await using broker = await startBroker();
      await createSession(broker);
      const env = loggerEnv({ database, broker }, { SPOOL_DIRECTORY: directory.path });
      const readings = makeReadings({ count: 15 });
      await publishReadings(broker, readings);
      await postgres.server.stop();
      try {
        await using logger = startLogger(env, options);
        await logger.waitForLine("Connected to MQTT broker");
        await delay(300);
        assert.equal((await stopCleanly(logger)).spooled, readings.length);
      } finally {
        await postgres.server.start();
      }
      await using lock = await database.connect();
      await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
      {
        await using logger = startLogger(env, options);
        await waitForBlockedInsert(database);
        await logger.kill();
      }
      await database.terminateLogger();
      await lock.query("ROLLBACK");
      await using _again = startLogger(env, options);
      await waitForRows(database, readings.length, { timeoutMs });
      await expectStored(database, readings);
    },
    breakage: "a message that leaves the spool before it is stored",
    breakages: [{
      file: "lib/pipeline/inbox.ts",
      find: "return spooled && new Batch(spooled.deliveries, spooled.ids);",
      replace: "if (spooled) this.#spool.remove(spooled.ids);\n" +
        "return spooled && new Batch(spooled.deliveries, []);",
    }],
    complaint: /Waiting for 15 rows/,
  }, {
    name: "receives readings from a broker that has lost its sessions",
    programs: ["mosquitto"],
    check: async ({ options, timeoutMs }) => {
      const database = await postgres.createDatabase();
      await using broker = await startTellingMosquitto();
      await using _logger = startLogger(loggerEnv({ database, broker }), options);
      await waitForSubscription(broker);
      await broker.restart({ keepStore: false });
      await waitUntil(() => countConnections(broker) === 1, { what: "the next connection" });
      await waitForSubscription(broker, { timeoutMs });
      const readings = makeReadings({ count: 10 });
      await publishReadings(broker, readings);
      await waitForRows(database, readings.length);
      await expectStored(database, readings);
    },
    breakage: "a subscription that is not renewed",
    breakages: [{
      file: "lib/mqtt/subscriber.ts",
      find: "this.#subscribing = this.#subscribe(connection, signal);",
      replace: "this.#subscribing = globalThis.once ??= this.#subscribe(connection, signal);",
    }],
    complaint: /Waiting for 1 subscriptions/,
  }, {
    name: "stores the good rows of a batch with a bad one",
    check: async ({ options, timeoutMs }) => {
      const database = await postgres.createDatabase({ valueType: "numeric(6,2)" });
      await using broker = await startBroker();
      await createSession(broker);
      const readings = makeReadings({ count: 15 }).map((reading, index) => ({
        ...reading,
        value: index === 7 ? 99_999 : index,
      }));
      await publishReadings(broker, readings);
      await using logger = startLogger(loggerEnv({ database, broker }), options);
      const good = readings.filter(({ value }) => value !== 99_999);
      await waitForRows(database, good.length, { timeoutMs });
      await expectStored(database, good);
      assert.equal((await stopCleanly(logger)).rejected, 1);
    },
    breakage: "a batch that is not split",
    breakages: [{
      file: "lib/database/storing.ts",
      find: "    const [first] = items;",
      replace: "throw error;",
    }],
    complaint: /Waiting for 14 rows/,
  }, {
    name: "forgets packet ids together with their connection",
    check: async ({ options }) => {
      const database = await postgres.createDatabase();
      await using broker = await startScriptedBroker();
      await postgres.server.stop();
      const [first, second] = makeReadings({ count: 2 }).map(toPayload);
      await using _logger = startLogger(loggerEnv({ database, broker }), options);
      try {
        const connection = await broker.subscribed(0);
        connection.publish(1, first ?? "");
        await connection.settled();
        connection.cut();
        const next = await broker.subscribed(1);
        next.publish(2, second ?? "");
        await next.settled();
      } finally {
        await postgres.server.start();
      }
      const next = await broker.subscribed(1);
      await waitForRows(database, 2);
      await waitUntil(() => next.acknowledgements.some(([, packetId]) => packetId === 2));
      await next.settled();
      assert.deepEqual(next.acknowledgements, [["pubrec", 2]]);
    },
    breakage: "an acknowledgement on another connection",
    breakages: [{
      file: "lib/mqtt/connection.ts",
      find: "(bytes) => this.#write(bytes),",
      replace: "(bytes) => globalThis.connection.#write(bytes),",
    }, {
      file: "lib/mqtt/connection.ts",
      find: "this.#socket = socket;",
      replace: "globalThis.connection = this; this.#socket = socket;",
    }, {
      file: "lib/mqtt/subscriber.ts",
      find: "this.#orphans.add(connection.abandon());",
      replace: "",
    }],
    complaint: /deep-equal/,
  }, {
    name: "acknowledges a packet id again only when its last QoS 2 handshake is complete",
    check: async ({ options }) => {
      const database = await postgres.createDatabase();
      await using broker = await startScriptedBroker();
      await using logger = startLogger(loggerEnv({ database, broker }), options);
      const connection = await broker.subscribed(0);
      const readings = makeReadings({ count: 2 });
      const [first = "", second = ""] = readings.map(toPayload);
      connection.publish(7, first);
      await connection.waitForAcknowledgements(1);
      // Mosquitto 2.0 does this with a backlog.
      connection.publish(7, second);
      await waitForRows(database, 2);
      await connection.settled();
      assert.deepEqual(connection.acknowledgements, [["pubrec", 7]]);
      connection.release(7);
      await connection.waitForAcknowledgements(3);
      assert.deepEqual(connection.acknowledgements, [["pubrec", 7], ["pubcomp", 7], ["pubrec", 7]]);
      connection.release(7);
      assert.equal((await stopCleanly(logger)).stored, 2);
      await expectStored(database, readings);
    },
    breakage: "a handshake that begins before the last one of its packet id is complete",
    breakages: [{
      file: "lib/mqtt/acknowledgement_queue.ts",
      find: " || this.#unreleased.has(packetId)) break;",
      replace: ") break;",
    }],
    complaint: /deep-equal/,
  }, {
    name: "leaves nothing unacknowledged when it is stopped after a backlog of 100,000 messages",
    isSlow: true,
    programs: ["mosquitto"],
    check: async ({ options }) => {
      const database = await postgres.createDatabase();
      await using broker = await startTellingMosquitto();
      await createSession(broker);
      const readings = makeReadings({ count: 100_000 });
      await publishReadingsFast(broker, readings);
      const env = loggerEnv({ database, broker });
      await using logger = startLogger(env, options);
      await waitForRows(database, readings.length);
      await stopCleanly(logger);
      await expectStored(database, readings);
      await using again = startLogger(env);
      await expectNothingLeft(again, broker);
    },
    breakage: "a whole backlog of incomplete QoS 2 handshakes",
    breakages: [{
      file: "lib/mqtt/acknowledgement_queue.ts",
      find: "this.#unreleased.size >= MAX_UNRELEASED || ",
      replace: "",
    }],
    complaint: /deep-equal/,
  }, {
    name: "counts the outcome of every message once",
    check: async ({ options }) => {
      const database = await postgres.createDatabase();
      await using broker = await startBroker();
      await createSession(broker);
      const readings = makeReadings({ count: 10 });
      await publishReadings(broker, readings);
      await using logger = startLogger(loggerEnv({ database, broker }), options);
      await waitForRows(database, readings.length);
      await stopCleanly(logger);
    },
    breakage: "an outcome that is counted twice",
    breakages: [{
      file: "lib/pipeline/outcomes.ts",
      find: "outcomes.stored += result.stored;",
      replace: "outcomes.stored += 2 * result.stored;",
    }],
    complaint: /deep-equal[^]*The counts do not add up: 0 messages in memory/,
  }, {
    name: "counts every message that it rejects",
    check: async ({ options }) => {
      const database = await postgres.createDatabase();
      await using broker = await startBroker();
      await createSession(broker);
      await publishPayloads(broker, ["no reading"]);
      await using logger = startLogger(loggerEnv({ database, broker }), options);
      await logger.waitForLine("Rejected a message");
      await stopCleanly(logger);
    },
    breakage: "an outcome that is not counted",
    breakages: [{
      file: "lib/pipeline/outcomes.ts",
      find: "this.#statistics.outcomes.rejected++;",
      replace: "",
    }],
    complaint: /deep-equal[^]*The counts do not add up: 0 messages in memory/,
  }];
}
