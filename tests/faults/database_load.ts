/**
 * What the tests of database faults have in common: a logger that is kept at work by readings that
 * keep coming, so that no fault can come too late to be under load, and the checks that hold after
 * each of them.
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
  /** Where the logger finds the database, if not at its own address: a proxy. */
  readonly through?: { readonly host: string; readonly port: number };
  /**
   * With a spool, by default, the broker keeps no more than Mosquitto does by default, so that a
   * logger which leaves its messages with the broker loses some. Without one it keeps everything.
   */
  readonly spool?: boolean;
  /** Readings a second; 500 by default. */
  readonly rate?: number;
  /** Further variables of the logger. */
  readonly env?: Readonly<Record<string, string>>;
  /** Further settings of the broker. */
  readonly broker?: MosquittoOptions;
}

/**
 * A load of which broker and in-flight window together hold three seconds' worth, since with MQTT
 * 3.1.1 the broker's limit is the window. More must go on to the spool.
 */
export const NARROW: LoadOptions = {
  env: { MQTT_PROTOCOL_VERSION: "4" },
  broker: { maxInflightMessages: 500 },
};

/** More readings than broker and window hold of the load {@linkcode NARROW}. */
export const MORE_THAN_NARROW_HOLDS = 1800;

/**
 * The timeouts of the database connection, divided by 15: with the defaults, it takes three quarters
 * of a minute until all of them have passed.
 */
export const SHORT_TIMEOUTS: LoggerEnv = tune({
  databaseConnectTimeoutMs: 700,
  statementTimeoutMs: 2_000,
  queryTimeoutMs: 2_300,
});

/** Waits until a statement and an attempt to connect have timed out. The level must be DEBUG. */
export async function waitForTimeouts(logger: LoggerProcess): Promise<void> {
  await logger.waitForLine(/ERROR .* is not available: .*timeout/);
  await logger.waitForLine(/DEBUG .* is still not available: .*timeout/);
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

/** A logger at work. The caller disposes it, and with it all that {@linkcode startLoad} started. */
export class Load implements AsyncDisposable {
  readonly logger: LoggerProcess;
  readonly #parts: LoadParts;

  /** Use {@linkcode startLoad}. */
  constructor(parts: LoadParts) {
    this.logger = parts.logger;
    this.#parts = parts;
  }

  /** Waits until so many readings more have been published and acknowledged by the broker. */
  async waitForPublished(count: number): Promise<void> {
    const { publisher } = this.#parts;
    const target = publisher.readings.length + count;
    await waitUntil(() => publisher.published >= target, {
      timeoutMs: 180_000,
      what: `${count} readings more to be published`,
    });
  }

  /** Waits until at least so many readings are in the spool, which there must be. */
  async waitForSpooled(count: number): Promise<void> {
    const { spoolDirectory } = this.#parts;
    assert.ok(spoolDirectory !== undefined, "a load without a spool");
    await waitUntil(() => countSpooled(spoolDirectory) >= count, {
      timeoutMs: 180_000,
      what: `${count} readings in the spool`,
    });
  }

  /** Waits until the logger stores: until the table has more rows than it has now. */
  async waitForStored(): Promise<void> {
    const { database } = this.#parts;
    await waitForRows(database, await database.countReadings() + 1);
  }

  /**
   * Ends the publishing and the logger, and checks that every reading has come through, once, that
   * the broker dropped nothing, and that the counts agree.
   */
  async finish(): Promise<Counts> {
    const { database, broker, publisher, logger } = this.#parts;
    await publisher.stop();
    const { readings } = publisher;
    assert.equal(countDrops(broker), 0, "the broker dropped messages");
    await waitForRows(database, readings.length);
    await expectStored(database, readings);
    // A connection that has failed may be the last to notice that the database is back.
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
   * Asserts that the errors in the log are outages of the database, each for a reason that matches,
   * and that it tells of their ends.
   *
   * @returns how many there were.
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

/** Says whether Mosquitto has dropped messages; it tells of it once for each client. */
export function countDrops(broker: MosquittoBroker): number {
  return broker.logLines.filter((line) => line.includes("Outgoing messages are being dropped"))
    .length;
}

/** Publishes readings of QoS 1, all different, until it is stopped. */
class EndlessPublisher implements AsyncDisposable {
  /** What the broker has acknowledged; the last part may be under way. */
  readonly readings: Reading[] = [];
  readonly #stopped = new AbortController();
  readonly #ended: Promise<void>;
  #failure: unknown;

  constructor(broker: BrokerAddress, rate: number) {
    // Held, so that a failure is thrown to whoever waits rather than to nobody.
    this.#ended = this.#publish(broker, rate).catch((error) => {
      this.#failure = error;
    });
  }

  /** @throws what went wrong. */
  get published(): number {
    if (this.#failure !== undefined) throw this.#failure;
    return this.readings.length;
  }

  /** Resolves when the broker has acknowledged what was under way. */
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
      // A day apart, which parts never last.
      const startTimeUs = 1_700_000_000_000_000n + BigInt(part) * 86_400_000_000n;
      const readings = makeReadings({ count: rate / 5, startTimeUs, seed: part });
      const count = await publishReadings(broker, readings, { qos: 1, rate, signal });
      this.readings.push(...readings.slice(0, count));
    }
  }
}
