/**
 * The common parts of the tests of broker faults: a logger under a load of daemons that publish
 * with QoS 1 and 2 throughout all faults, and the checks after each fault.
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

/** Maximum readings of a daemon: more than any of these tests needs. */
const MAX_READINGS = 20_000;

/** Readings per second of each daemon. */
const RATE = 250;

const OUTAGE = /^MQTT broker '127\.0\.0\.1:\d+' is not available: (.*)\. Retrying until it is\.$/;
const RECOVERY = /^MQTT broker '127\.0\.0\.1:\d+' is available again after \d+\.\d s\.$/;

/** The reasons for a lost connection, depending on the system. */
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

/** A publisher that records the readings that it has sent. */
export class NotingDaemon implements AsyncDisposable {
  readonly qos: 1 | 2;
  readonly #daemon: Daemon;
  readonly #planned: readonly Reading[];

  /** Daemons with different `number` publish different readings. */
  constructor(broker: BrokerAddress, options: { readonly qos: 1 | 2; readonly number: number }) {
    this.qos = options.qos;
    // A year apart, which no daemon reaches.
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

  /** Readings that are due so far; all of them were or will be published. */
  get due(): number {
    return this.#daemon.due;
  }

  /** Readings that the broker has acknowledged. */
  get acknowledged(): number {
    return this.#daemon.acknowledged;
  }

  /** Number of connections to the broker so far. */
  get connections(): number {
    return this.#daemon.connections;
  }

  /** Waits until `count` more readings are due. */
  async waitForDue(count: number): Promise<void> {
    const target = this.due + count;
    await waitUntil(() => this.due >= target, { what: `${count} readings more` });
  }

  /** Waits until the broker has acknowledged `count` more readings. */
  async waitForAcknowledged(count: number): Promise<void> {
    const target = this.acknowledged + count;
    await waitUntil(() => this.acknowledged >= target, {
      what: `${count} readings more to be acknowledged`,
    });
  }

  /** Ends the daemon, waits until the broker has acknowledged all readings, and returns them. */
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
  /** Whether the logger is notified of takeovers with any broker; see `startTakeoverTeller`. */
  readonly tellsTakeovers?: boolean;
  /** Additional variables of the logger. */
  readonly env?: Readonly<Record<string, string>>;
  /** Additional settings of the broker. */
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

/** The running logger. Disposing it also disposes everything that {@linkcode startLoad} started. */
export class Load implements AsyncDisposable {
  readonly database: TestDatabase;
  readonly broker: MosquittoBroker;
  /** The address of the broker for the logger. */
  readonly address: ProxyTarget;
  readonly logger: LoggerProcess;
  /** One daemon per QoS, and those that the test has started. */
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

  /** Starts two more daemons, one per QoS. */
  startDaemons(): readonly NotingDaemon[] {
    const started = ([1, 2] as const).map((qos) => {
      const daemon = new NotingDaemon(this.broker, { qos, number: this.daemons.length });
      this.daemons.push(this.#resources.use(daemon));
      return daemon;
    });
    return started;
  }

  /** Waits until `count` more readings are due, which does not need a broker. */
  async waitForDue(count: number): Promise<void> {
    await Promise.all(this.daemons.map((daemon) => daemon.waitForDue(count)));
  }

  /** Waits until the table has `count` more rows than now. */
  async waitForStored(count: number): Promise<void> {
    await waitForRows(this.database, await this.database.countReadings() + count);
  }

  /** Causes an outage, and waits until the logger reports it. */
  async outage(begin: () => unknown): Promise<void> {
    const from = this.logger.lines.length;
    await begin();
    await this.logger.waitForLine(/ERROR +MQTT broker .* is not available/, { from });
  }

  /** Ends an outage, and waits until the logger reports that. */
  async recovery(begin: () => unknown): Promise<void> {
    const from = this.logger.lines.length;
    await begin();
    await this.logger.waitForLine(/INFO +MQTT broker .* is available again/, {
      from,
      timeoutMs: 180_000,
    });
  }

  /** Ends the daemons, and returns the published readings of each. */
  async finishDaemons(): Promise<readonly (readonly Reading[])[]> {
    return await Promise.all(this.daemons.map((daemon) => daemon.finish()));
  }

  /**
   * Ends daemons and logger, and checks that every reading is in the table exactly once, and that
   * the counts agree.
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

/** The logged reasons of outages of the broker, one per outage. */
export function outagesOf(logger: LoggerProcess): string[] {
  return linesOf(logger, "ERROR").flatMap((line) => OUTAGE.exec(line)?.[1] ?? []);
}

/** The number of logged ends of outages of the broker. */
export function countRecoveries(logger: LoggerProcess): number {
  return linesOf(logger, "INFO").filter((line) => RECOVERY.test(line)).length;
}

/** Waits until the end of every outage of the broker has been logged. */
export async function waitForOutageEnds(logger: LoggerProcess): Promise<void> {
  await waitUntil(() => countRecoveries(logger) === outagesOf(logger).length, {
    timeoutMs: 180_000,
    what: "the end of the outage in the log",
  });
}

/**
 * Asserts that the log has this number of outages of the broker, each with a matching reason, the
 * same number of ends, and no other error.
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
