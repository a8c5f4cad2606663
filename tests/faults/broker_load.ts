/**
 * What the tests of broker faults have in common: a logger that is kept at work by daemons which
 * publish with QoS 1 and 2, whatever becomes of the broker, and the checks that hold after each
 * fault.
 */
import assert from "node:assert/strict";
import { type Daemon, startDaemon } from "../support/daemon.ts";
import {
  type LoggerEnv,
  loggerEnv,
  type LoggerProcess,
  startLogger,
} from "../support/logger_process.ts";
import type { MosquittoBroker, MosquittoOptions } from "../support/mosquitto.ts";
import type { BrokerAddress } from "../support/mqtt_client.ts";
import { waitUntil } from "../support/poll.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
import { type ProxyTarget, startProxy, type TcpProxy } from "../support/proxy.ts";
import { expectStored, makeReadings, type Reading, toPayload } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import { startTakeoverTeller } from "./takeover_teller.ts";
import {
  type Counts,
  createSession,
  linesOf,
  startTellingMosquitto,
  stopCleanly,
  waitForRows,
} from "../support/harness.ts";
import { tune } from "../support/tuning.ts";

/** Readings that a daemon has at most: more than any of these tests takes. */
const MAX_READINGS = 20_000;

/** Readings a second of each daemon. */
const RATE = 250;

const OUTAGE = /^MQTT broker '127\.0\.0\.1:\d+' is not available: (.*)\. Retrying until it is\.$/;
const RECOVERY = /^MQTT broker '127\.0\.0\.1:\d+' is available again after \d+\.\d s\.$/;

/** How a connection may end that was not given up by the logger, as the system happens to tell. */
export const ENDED = /shutting down|closed|reset|aborted/;

/**
 * Keepalive, timeouts and delays, divided by 10 or more: with the defaults, it takes the logger
 * three quarters of a minute to notice a silent broker. Mosquitto could demand a shorter keepalive,
 * but none below ten seconds. Even a busy machine is not silent for two seconds.
 */
export const SHORT_TIMEOUTS: LoggerEnv = tune({
  mqttKeepaliveSeconds: 2,
  mqttConnectTimeoutMs: 1_000,
  maxReconnectDelayMs: 400,
});

/** A publisher of readings that notes what it has sent. */
export class NotingDaemon implements AsyncDisposable {
  readonly qos: 1 | 2;
  readonly #daemon: Daemon;
  readonly #planned: readonly Reading[];

  /** Those of different `number` publish different readings. */
  constructor(broker: BrokerAddress, options: { readonly qos: 1 | 2; readonly number: number }) {
    this.qos = options.qos;
    // A year apart, which nobody publishes.
    const startTimeUs = 1_600_000_000_123_456n + BigInt(options.number) * 31_536_000_000_000n;
    const planned = makeReadings({ count: MAX_READINGS, startTimeUs, seed: options.number });
    this.#planned = planned;
    this.#daemon = startDaemon(broker, {
      qos: this.qos,
      rate: RATE,
      message: (index) => {
        const reading = planned[index];
        assert.ok(reading, "the test takes too long for its readings");
        return { topic: `sensors/test/${reading.uuid}`, payload: toPayload(reading) };
      },
    });
  }

  /** Readings that were measured so far; all of them were or will be published. */
  get due(): number {
    return this.#daemon.due;
  }

  /** Readings that the broker has taken over. */
  get acknowledged(): number {
    return this.#daemon.acknowledged;
  }

  /** Connections to the broker so far. */
  get connections(): number {
    return this.#daemon.connections;
  }

  /** Waits until so many more have been measured. */
  async waitForDue(count: number): Promise<void> {
    const target = this.due + count;
    await waitUntil(() => this.due >= target, { what: `${count} readings more` });
  }

  /** Waits until the broker has taken over so many more. */
  async waitForAcknowledged(count: number): Promise<void> {
    const target = this.acknowledged + count;
    await waitUntil(() => this.acknowledged >= target, {
      what: `${count} readings more to be acknowledged`,
    });
  }

  /** Ends the measuring and waits until the broker has taken over everything; returns it. */
  async finish(): Promise<readonly Reading[]> {
    return this.#planned.slice(0, await this.#daemon.finish());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#daemon[Symbol.asyncDispose]();
  }
}

/** How {@linkcode startLoad} sets the scene. */
export interface LoadOptions {
  /** `true` by default. */
  readonly spool?: boolean;
  /** Whether the logger, but not the daemons, reaches the broker through a proxy. */
  readonly proxied?: boolean;
  /** Whether the logger is told of takeovers whatever the broker; see `startTakeoverTeller`. */
  readonly tellsTakeovers?: boolean;
  /** Further variables of the logger. */
  readonly env?: Readonly<Record<string, string>>;
  /** Further settings of the broker. */
  readonly broker?: MosquittoOptions;
}

/** Starts broker, logger and daemons, and waits until readings arrive in the table. */
export async function startLoad(database: TestDatabase, options: LoadOptions = {}): Promise<Load> {
  const { spool = true, proxied = false, tellsTakeovers = false } = options;
  const resources = new AsyncDisposableStack();
  try {
    const broker = resources.use(
      await startTellingMosquitto({ maxInflightMessages: 100, ...options.broker }),
    );
    await createSession(broker);
    const proxy = proxied ? resources.use(await startProxy(broker)) : undefined;
    const teller = tellsTakeovers ? resources.use(await startTakeoverTeller(broker)) : undefined;
    const address = teller ?? proxy ?? broker;
    const directory = resources.use(withTemporaryDirectory());
    const env = loggerEnv({ database, broker: address }, {
      ...(spool && { SPOOL_DIRECTORY: directory.path }),
      ...options.env,
    });
    const logger = resources.use(startLogger(env));
    await logger.waitForLine("Connected to MQTT broker");
    const load = new Load({ database, broker, proxy, address, logger, resources });
    load.startDaemons();
    await waitForRows(database, 1);
    return load;
  } catch (error) {
    await resources.disposeAsync();
    throw error;
  }
}

interface LoadParts {
  readonly database: TestDatabase;
  readonly broker: MosquittoBroker;
  readonly proxy: TcpProxy | undefined;
  readonly address: ProxyTarget;
  readonly logger: LoggerProcess;
  readonly resources: AsyncDisposableStack;
}

/** A logger at work. The caller disposes it, and with it all that {@linkcode startLoad} started. */
export class Load implements AsyncDisposable {
  readonly database: TestDatabase;
  readonly broker: MosquittoBroker;
  /** Where the logger finds the broker. */
  readonly address: ProxyTarget;
  readonly logger: LoggerProcess;
  /** One of each QoS, or more where the test has started more. */
  readonly daemons: NotingDaemon[] = [];
  readonly #proxy: TcpProxy | undefined;
  readonly #resources: AsyncDisposableStack;

  /** Use {@linkcode startLoad}. */
  constructor({ database, broker, proxy, address, logger, resources }: LoadParts) {
    this.database = database;
    this.broker = broker;
    this.address = address;
    this.logger = logger;
    this.#proxy = proxy;
    this.#resources = resources;
  }

  get proxy(): TcpProxy {
    assert.ok(this.#proxy, "the load is not proxied");
    return this.#proxy;
  }

  /** Starts two more daemons, one of each QoS. */
  startDaemons(): readonly NotingDaemon[] {
    const started = ([1, 2] as const).map((qos) => {
      const daemon = new NotingDaemon(this.broker, { qos, number: this.daemons.length });
      this.daemons.push(this.#resources.use(daemon));
      return daemon;
    });
    return started;
  }

  /** Waits until the daemons have measured so many readings more, which they do without a broker. */
  async waitForDue(count: number): Promise<void> {
    await Promise.all(this.daemons.map((daemon) => daemon.waitForDue(count)));
  }

  /** Waits until the table has so many rows more than now. */
  async waitForStored(count: number): Promise<void> {
    await waitForRows(this.database, await this.database.countReadings() + count);
  }

  /** Does something after which the logger must tell of an outage, and waits until it has. */
  async outage(begin: () => unknown): Promise<void> {
    const from = this.logger.lines.length;
    await begin();
    await this.logger.waitForLine(/ERROR +MQTT broker .* is not available/, { from });
  }

  /** Does something after which the broker is there again, and waits until the logger says so. */
  async recovery(begin: () => unknown): Promise<void> {
    const from = this.logger.lines.length;
    await begin();
    await this.logger.waitForLine(/INFO +MQTT broker .* is available again/, {
      from,
      timeoutMs: 180_000,
    });
  }

  /** Ends the daemons; returns what each of them has published. */
  async finishDaemons(): Promise<readonly (readonly Reading[])[]> {
    return await Promise.all(this.daemons.map((daemon) => daemon.finish()));
  }

  /**
   * Ends daemons and logger, and checks that every reading has come through, once, and that the
   * counts agree.
   */
  async finish(): Promise<Counts> {
    const readings = (await this.finishDaemons()).flat();
    await waitForRows(this.database, readings.length);
    await expectStored(this.database, readings);
    await waitForOutageEnds(this.logger);
    const counts = await stopCleanly(this.logger);
    assert.equal(counts.stored, readings.length);
    assert.deepEqual([counts.rejected + counts.unknown, counts.spooled, counts.waiting], [0, 0, 0]);
    return counts;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync();
  }
}

/** The readings that are not in the table. */
export async function findMissing(
  database: TestDatabase,
  readings: readonly Reading[],
): Promise<Set<Reading>> {
  const rows = await database.query<{ time: string }>(
    "SELECT (extract(epoch FROM time) * 1000000)::bigint::text AS time FROM sensor_data",
  );
  const times = new Set(rows.map(({ time }) => time));
  return new Set(readings.filter(({ timeUs }) => !times.has(String(timeUs))));
}

/** Why the broker was not available, once for each outage that the log tells of. */
export function outagesOf(logger: LoggerProcess): string[] {
  return linesOf(logger, "ERROR").flatMap((line) => OUTAGE.exec(line)?.[1] ?? []);
}

/** How often the log says that an outage of the broker is over. */
export function countRecoveries(logger: LoggerProcess): number {
  return linesOf(logger, "INFO").filter((line) => RECOVERY.test(line)).length;
}

/** Waits until every outage of the broker is over in the log, too. */
export async function waitForOutageEnds(logger: LoggerProcess): Promise<void> {
  await waitUntil(() => countRecoveries(logger) === outagesOf(logger).length, {
    timeoutMs: 180_000,
    what: "the end of the outage in the log",
  });
}

/**
 * Asserts that the log tells of so many outages of the broker, each for a reason that matches, of
 * as many ends of them, and of no other error.
 */
export function expectOutages(logger: LoggerProcess, count: number, reason: RegExp): void {
  const outages = outagesOf(logger);
  assert.equal(outages.length, count, `outages: ${outages.join("; ")}`);
  for (const outage of outages) assert.match(outage, reason);
  assert.equal(countRecoveries(logger), count);
  const others = linesOf(logger, "ERROR").filter((line) =>
    !OUTAGE.test(line) && !line.startsWith("Database ")
  );
  assert.deepEqual(others, []);
}
