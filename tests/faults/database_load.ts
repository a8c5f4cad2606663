/**
 * The common parts of the tests of database faults: a logger under a load that lasts throughout all
 * faults, so that every fault occurs under load, and the checks after each fault.
 */
import assert from "node:assert/strict";
import {
  type LoggerEnv,
  loggerEnv,
  type LoggerProcess,
  startLogger,
} from "../support/logger_process.ts";
import type { MosquittoBroker, MosquittoOptions } from "../support/mosquitto.ts";
import { waitUntil } from "../support/poll.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
import { type BrokerAddress, publishReadings } from "../support/publisher.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import { expectStored, makeReadings, type Reading } from "../support/readings.ts";
import {
  type Counts,
  createSession,
  linesOf,
  startTellingMosquitto,
  stopCleanly,
  waitForRows,
} from "../support/harness.ts";
import { tune } from "../support/tuning.ts";
import { countSpooled } from "./spool_file.ts";

/** How {@linkcode startLoad} sets the scene. */
export interface LoadOptions {
  /** The address of a proxy to the database for the logger; by default that of the database. */
  readonly through?: { readonly host: string; readonly port: number };
  /**
   * Whether the logger has a spool; true by default. With a spool, the queue of the broker has
   * Mosquitto's default limit, so that a logger that leaves its messages there loses some. Without
   * one, the queue has no limit.
   */
  readonly spool?: boolean;
  /** Readings per second; 500 by default. */
  readonly rate?: number;
  /** Additional variables of the logger. */
  readonly env?: Readonly<Record<string, string>>;
  /** Additional settings of the broker. */
  readonly broker?: MosquittoOptions;
}

/**
 * A load of which broker and in-flight window together hold three seconds: with MQTT 3.1.1 the
 * limit of the broker is the window. Further messages must be spooled.
 */
export const NARROW: LoadOptions = {
  env: { MQTT_PROTOCOL_VERSION: "4" },
  broker: { maxInflightMessages: 500 },
};

/** More readings than broker and window hold with the load {@linkcode NARROW}. */
export const MORE_THAN_NARROW_HOLDS = 1800;

/**
 * The timeouts of the database connection, divided by 15: with the defaults, it takes three
 * quarters of a minute until all of them have passed.
 */
export const SHORT_TIMEOUTS: LoggerEnv = tune({
  databaseConnectTimeoutMs: 700,
  statementTimeoutMs: 2_000,
  queryTimeoutMs: 2_300,
});

/** Waits until a statement and an attempt to connect have timed out. The level must be DEBUG. */
export async function waitForTimeouts(logger: LoggerProcess): Promise<void> {
  // In this order, or the other one: one connection may be about to be opened when answers stop.
  await logger.waitForLine(/ is (still )?not available: .*timeout/);
  await logger.waitForLine(/ is (still )?not available: no answer in time/);
}

/** Starts broker, logger and publisher, and waits until readings arrive in the table. */
export async function startLoad(database: TestDatabase, options: LoadOptions = {}): Promise<Load> {
  const { spool = true, through, rate = 500 } = options;
  const resources = new AsyncDisposableStack();
  try {
    const broker = resources.use(
      await startTellingMosquitto({
        maxInflightMessages: 1000,
        maxQueuedMessages: spool ? 1000 : 0,
        ...options.broker,
      }),
    );
    await createSession(broker);
    const directory = resources.use(withTemporaryDirectory());
    const env = loggerEnv({ database, broker }, {
      ...(spool && { SPOOL_DIRECTORY: directory.path }),
      ...(through && { DATABASE_HOST: through.host, DATABASE_PORT: String(through.port) }),
      ...options.env,
    });
    const logger = resources.use(startLogger(env));
    await logger.waitForLine("Connected to MQTT broker");
    const publisher = resources.use(new EndlessPublisher(broker, rate));
    await waitForRows(database, 1);
    const spoolDirectory = spool ? directory.path : undefined;
    return new Load({ database, broker, logger, publisher, spoolDirectory, resources });
  } catch (error) {
    await resources.disposeAsync();
    throw error;
  }
}

interface LoadParts {
  readonly database: TestDatabase;
  readonly broker: MosquittoBroker;
  readonly logger: LoggerProcess;
  readonly publisher: EndlessPublisher;
  readonly spoolDirectory: string | undefined;
  readonly resources: AsyncDisposableStack;
}

/** The running logger. Disposing it also disposes everything that {@linkcode startLoad} started. */
export class Load implements AsyncDisposable {
  readonly logger: LoggerProcess;
  readonly #parts: LoadParts;

  /** Use {@linkcode startLoad}. */
  constructor(parts: LoadParts) {
    this.logger = parts.logger;
    this.#parts = parts;
  }

  /** Waits until `count` more readings have been published and acknowledged by the broker. */
  async waitForPublished(count: number): Promise<void> {
    const { publisher } = this.#parts;
    const target = publisher.readings.length + count;
    await waitUntil(() => publisher.published >= target, {
      timeoutMs: 180_000,
      what: `${count} readings more to be published`,
    });
  }

  /** Waits until at least `count` readings are in the spool. */
  async waitForSpooled(count: number): Promise<void> {
    const { spoolDirectory } = this.#parts;
    assert.ok(spoolDirectory !== undefined, "a load without a spool");
    await waitUntil(() => countSpooled(spoolDirectory) >= count, {
      timeoutMs: 180_000,
      what: `${count} readings in the spool`,
    });
  }

  /** Waits until the logger stores: until the table has more rows than now. */
  async waitForStored(): Promise<void> {
    const { database } = this.#parts;
    await waitForRows(database, await database.countReadings() + 1);
  }

  /**
   * Ends publisher and logger, and checks that every reading is in the table exactly once, that the
   * broker dropped nothing, and that the counts agree.
   */
  async finish(): Promise<Counts> {
    const { database, broker, publisher, logger } = this.#parts;
    await publisher.stop();
    const { readings } = publisher;
    assert.equal(countDrops(broker), 0, "the broker dropped messages");
    await waitForRows(database, readings.length);
    await expectStored(database, readings);
    // A failed connection may be the last one to notice that the database works again.
    await waitUntil(() => this.#outageEnds.length === linesOf(logger, "ERROR").length, {
      timeoutMs: 180_000,
      what: "the end of the outage in the log",
    });
    const counts = await stopCleanly(logger);
    assert.equal(counts.stored + counts.duplicates, readings.length);
    assert.deepEqual([counts.received, counts.spooled, counts.waiting], [readings.length, 0, 0]);
    return counts;
  }

  /**
   * Asserts that the errors in the log are outages of the database, each with a matching reason,
   * and that their ends are logged.
   *
   * @returns the number of outages.
   */
  expectOutages(reason: RegExp): number {
    const errors = linesOf(this.logger, "ERROR");
    assert.ok(errors.length > 0, "no outage in the log");
    for (const line of errors) {
      const said = /^Database '.*' at '.*' is not available: (.*)\. Retrying/.exec(line);
      assert.match(said?.[1] ?? `something else: ${line}`, reason);
    }
    assert.equal(this.#outageEnds.length, errors.length);
    return errors.length;
  }

  get #outageEnds(): string[] {
    return linesOf(this.logger, "INFO").filter((line) =>
      /^Database '.*' at '.*' is available again after \d+\.\d s\./.test(line)
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.resources.disposeAsync();
  }
}

/** Whether Mosquitto has dropped messages; it logs that once per client. */
export function countDrops(broker: MosquittoBroker): number {
  return broker.logLines.filter((line) => line.includes("Outgoing messages are being dropped"))
    .length;
}

/** Publishes different readings of QoS 1 until it is stopped. */
class EndlessPublisher implements AsyncDisposable {
  /** The acknowledged readings, without the part that is being published. */
  readonly readings: Reading[] = [];
  readonly #stopped = new AbortController();
  readonly #ended: Promise<void>;
  #failure: unknown;

  constructor(broker: BrokerAddress, rate: number) {
    // Kept, so that a failure is thrown to the caller that waits.
    this.#ended = this.#publish(broker, rate).catch((error) => {
      this.#failure = error;
    });
  }

  /** @throws the error of the publisher. */
  get published(): number {
    if (this.#failure !== undefined) throw this.#failure;
    return this.readings.length;
  }

  /** Resolves when the broker has acknowledged all published readings. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#ended;
    if (this.#failure !== undefined) throw this.#failure;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped.abort();
    await this.#ended;
  }

  async #publish(broker: BrokerAddress, rate: number): Promise<void> {
    const { signal } = this.#stopped;
    for (let part = 0; !signal.aborted; part++) {
      // A day apart; a part never lasts that long.
      const startTimeUs = 1_700_000_000_000_000n + BigInt(part) * 86_400_000_000n;
      const readings = makeReadings({ count: rate / 5, startTimeUs, seed: part });
      const count = await publishReadings(broker, readings, { qos: 1, rate, signal });
      this.readings.push(...readings.slice(0, count));
    }
  }
}
