/**
 * The logger: joins subscriber, pipeline, spool and monitoring, and starts and stops them in the
 * right order.
 */

import { sleep } from "./common/backoff.ts";
import { log } from "./common/log.ts";
import { formatCount } from "./common/text.ts";
import type { Config } from "./config/config.ts";
import { DatabaseConnection } from "./database/connection.ts";
import { Metrics } from "./http/metrics.ts";
import { HttpServer } from "./http/server.ts";
import { Health } from "./monitoring/health.ts";
import { InsertRecorder } from "./monitoring/insert_recorder.ts";
import { Monitor, type MonitoredParts, summarize } from "./monitoring/monitor.ts";
import type { Summary } from "./monitoring/status.ts";
import { MqttSubscriber } from "./mqtt/subscriber.ts";
import { DatabaseState } from "./pipeline/database_state.ts";
import { Inbox } from "./pipeline/inbox.ts";
import { Intake } from "./pipeline/intake.ts";
import { Outcomes } from "./pipeline/outcomes.ts";
import { Overflow } from "./pipeline/overflow.ts";
import { Statistics } from "./pipeline/statistics.ts";
import { Writer } from "./pipeline/writer.ts";
import { SpoolFile } from "./spool/file.ts";
import { Spool } from "./spool/spool.ts";
import { SubscriptionRecord } from "./spool/subscription_record.ts";

/** Time to commit and acknowledge the messages in flight when the logger is stopped. */
const DRAIN_TIMEOUT_MS = 10_000;

/** A shutdown does not wait longer for an insert whose readings are in the spool as well. */
const INSERT_PATIENCE_MS = 2_000;

/** Interval of the check whether every message is safe. */
const POLL_MS = 20;

/** Interval of the health check. */
const HEALTH_INTERVAL_MS = 1_000;

/** The parts that exist only if HTTP is configured. */
interface HttpParts {
  readonly monitor: Monitor;
  readonly metrics: Metrics;
  readonly server: HttpServer;
}

/** Carries readings from the broker to the database from `start` until `stop`. */
export class Logger {
  readonly statistics: Statistics;
  readonly #config: Config;
  readonly #spoolFile: SpoolFile | undefined;
  readonly #inbox: Inbox;
  readonly #overflow: Overflow | undefined;
  readonly #writer: Writer;
  readonly #intake: Intake;
  readonly #subscriber: MqttSubscriber;
  readonly #parts: MonitoredParts;
  readonly #http: HttpParts | undefined;
  readonly #stopSubscribing = new AbortController();
  readonly #stopWriting = new AbortController();
  #subscribing: Promise<void> = Promise.resolve();
  #writing: Promise<void> = Promise.resolve();
  #overflowing: Promise<void> = Promise.resolve();
  readonly #timers: ReturnType<typeof setInterval>[] = [];

  /**
   * Opens the spool and listens for HTTP requests, as far as that is configured.
   *
   * @throws {SpoolError} when the spool cannot be used.
   * @throws {HttpError} when the HTTP server cannot be started.
   */
  constructor(config: Config) {
    const { database, mqtt, http, tuning } = config;
    this.#config = config;
    this.#spoolFile = config.spool && SpoolFile.open(config.spool);
    const spool = this.#spoolFile && new Spool(this.#spoolFile);
    this.statistics = new Statistics(spool);
    const { statistics } = this;
    const countWaiting = (): number => statistics.waiting + statistics.spooled;
    const state = new DatabaseState(database, countWaiting);
    this.#inbox = new Inbox(spool, tuning);
    this.#overflow = spool && new Overflow({
      inbox: this.#inbox,
      spool,
      isDatabaseUnavailable: () => state.isUnavailable,
      tuning,
    });
    const recorder = http && new InsertRecorder();
    const outcomes = new Outcomes({
      statistics,
      spoolFile: this.#spoolFile,
      onInserted: recorder && ((batch, result) => recorder.record(batch, result)),
      tuning,
    });
    this.#writer = new Writer(database, {
      inbox: this.#inbox,
      outcomes,
      state,
      open: (signal) => DatabaseConnection.open(database, signal),
    });
    this.#intake = new Intake({ inbox: this.#inbox, statistics, tuning });
    this.#subscriber = new MqttSubscriber(mqtt, {
      onDelivery: (delivery) => this.#intake.accept(delivery),
      onRedelivered: () => this.#intake.acceptRedelivery(),
      store: mqtt.clientId === undefined
        ? undefined
        : this.#spoolFile && new SubscriptionRecord(this.#spoolFile, mqtt.clientId),
    });
    const health = new Health(() => ({
      waiting: this.#inbox.inMemory + statistics.spooled,
      storing: this.#writer.attempts + statistics.ended,
      isBrokerConnected: this.#subscriber.connectionStatus.connected,
      connecting: this.#subscriber.attempts,
    }), tuning);
    this.#parts = {
      ...{ statistics, health, spool, state },
      inbox: this.#inbox,
      subscriber: this.#subscriber,
      overflow: this.#overflow,
      spoolMaxBytes: config.spool?.maxBytes ?? 0,
    };
    this.#http = recorder && this.#serve(config, recorder);
    if (mqtt.clientId === undefined) {
      log.warning(
        "MQTT_CLIENT_ID is not set: the broker queues nothing for a logger that is not connected. " +
          "Messages are lost at every restart and every interruption of the connection.",
      );
    }
    if (statistics.found > 0) {
      log.info(`Found ${formatCount(statistics.found, "message")} of an earlier run in the spool.`);
    }
  }

  #serve({ http, database }: Config, recorder: InsertRecorder): HttpParts | undefined {
    if (http === undefined) return undefined;
    const monitor = new Monitor(this.#parts, { database, recorder });
    const metrics = new Metrics(monitor, recorder.histograms);
    try {
      return { monitor, metrics, server: new HttpServer(http, { monitor, metrics }) };
    } catch (error) {
      metrics.stop();
      this.#spoolFile?.close();
      throw error;
    }
  }

  /** The state of the logger at the moment. */
  summary(): Summary {
    return summarize(this.#parts);
  }

  /** Starts; connections are made in the background. `failed` rejects if a defect ends a part. */
  start(): { readonly failed: Promise<never> } {
    const failed = Promise.withResolvers<never>();
    this.#subscribing = this.#subscriber.run(this.#stopSubscribing.signal);
    this.#writing = this.#writer.run(this.#stopWriting.signal);
    this.#overflowing = this.#overflow?.run(this.#stopWriting.signal) ?? Promise.resolve();
    for (const task of [this.#subscribing, this.#writing, this.#overflowing]) {
      task.catch(failed.reject);
    }
    this.#http?.monitor.start();
    this.#timers.push(
      setInterval(() => this.#parts.health.tick(), HEALTH_INTERVAL_MS),
      setInterval(
        () => log.info(`Totals since start: ${this.statistics}.`),
        this.#config.tuning.totalsIntervalMs,
      ),
    );
    return { failed: failed.promise };
  }

  /**
   * Stops the intake, commits and acknowledges the messages in flight within ten seconds, and
   * disconnects; messages that the database does not store in time go to the spool. Returns how
   * many messages have no outcome; the broker redelivers those that it keeps for this client.
   */
  async stop(): Promise<number> {
    this.#subscriber.stopIntake();
    this.#stopSubscribing.abort();
    this.#timers.forEach(clearInterval);
    this.#inbox.close();
    try {
      await this.#untilSafe();
    } finally {
      this.#stopWriting.abort();
      await Promise.all([this.#subscribing, this.#writing, this.#overflowing]);
      await this.#subscriber.disconnect();
      this.#http?.metrics.stop();
      await Promise.all([this.#http?.monitor.stop(), this.#http?.server.stop()]);
      this.#inbox.dispose();
      this.#intake.flush();
    }
    const { waiting } = this.statistics;
    if (waiting !== this.#inbox.inMemory) {
      log.error(
        `The counts do not add up: ${formatCount(this.#inbox.inMemory, "message")} in memory, ` +
          `but ${this.statistics}. This is a defect of the logger.`,
      );
    }
    this.#spoolFile?.close();
    return waiting;
  }

  /** Resolves when every message is stored or in the spool, or when the time is up. */
  async #untilSafe(): Promise<void> {
    const { signal } = this.#stopWriting;
    const startMs = performance.now();
    while (performance.now() - startMs < DRAIN_TIMEOUT_MS) {
      const nowMs = performance.now();
      const isWaitedFor = this.#inbox.beingStored.some(({ takenMs }) =>
        nowMs - takenMs < INSERT_PATIENCE_MS
      );
      if (this.#inbox.inMemory === 0 && !isWaitedFor) return;
      await sleep(POLL_MS, signal);
    }
  }
}
