/**
 * The logger: subscriber, inbox, spool and writer joined, started and stopped in the right order.
 */

import type { Config } from "./config/config.ts";
import type { Delivery } from "./message/delivery.ts";
import { Inbox } from "./pipeline/inbox.ts";
import { Health } from "./monitoring/health.ts";
import { StoreHistograms } from "./monitoring/histograms.ts";
import { HttpServer } from "./http/server.ts";
import { FloodGuard, log } from "./common/log.ts";
import { Metrics } from "./http/metrics.ts";
import { Monitor, type MonitoredParts, summarize } from "./monitoring/monitor.ts";
import { MqttSubscriber } from "./mqtt/subscriber.ts";
import { Overflow } from "./pipeline/overflow.ts";
import { shortenPayload } from "./message/reading.ts";
import { sleep } from "./common/retry.ts";
import { Spool } from "./spool/spool.ts";
import { SpoolDatabase } from "./spool/file.ts";
import { Statistics } from "./pipeline/statistics.ts";
import type { Summary } from "./monitoring/status.ts";
import { SubscriptionRecord } from "./spool/subscription_record.ts";
import { Writer } from "./pipeline/writer.ts";

/** Time to commit and acknowledge what is in hand when the logger is told to stop. */
const DRAIN_TIMEOUT_MS = 10_000;

/** An insert that takes longer is not waited for, where what it stores is in the spool as well. */
const INSERT_PATIENCE_MS = 2_000;

/** Time between two looks whether everything in hand is safe. */
const POLL_MS = 20;

/** Time between two looks at whether the logger moves. */
const LOOK_MS = 1_000;

/** Time between two writings of the records. */
const RECORDS_MS = 10_000;

/** Time between two lines with all counts. */
const ACCOUNT_MS = 3600 * 1000;

/** What there is only where HTTP is configured. */
interface HttpParts {
  readonly monitor: Monitor;
  readonly metrics: Metrics;
  readonly server: HttpServer;
}

/** Carries readings from the broker to the database from `start` until `stop`. */
export class Logger {
  readonly statistics: Statistics;
  readonly #spoolDatabase: SpoolDatabase | undefined;
  readonly #inbox: Inbox;
  readonly #overflow: Overflow | undefined;
  readonly #subscriber: MqttSubscriber;
  readonly #writer: Writer;
  readonly #drops = new FloodGuard("QoS 0 messages that were dropped");
  readonly #stopSubscribing = new AbortController();
  readonly #stopWriting = new AbortController();
  #subscribing: Promise<void> = Promise.resolve();
  #writing: Promise<void> = Promise.resolve();
  #overflowing: Promise<void> = Promise.resolve();
  readonly #parts: MonitoredParts;
  readonly #http: HttpParts | undefined;
  readonly #timers: ReturnType<typeof setInterval>[] = [];

  /**
   * Opens the spool and listens for HTTP requests, where that is configured.
   *
   * @throws {SpoolError} when the spool cannot be used.
   * @throws {HttpError} when the HTTP server cannot be started.
   */
  constructor(config: Config) {
    this.#spoolDatabase = config.spool && SpoolDatabase.open(config.spool);
    const spool = this.#spoolDatabase && new Spool(this.#spoolDatabase);
    this.statistics = new Statistics(spool);
    this.#inbox = new Inbox(spool);
    this.#overflow = spool && new Overflow({
      inbox: this.#inbox,
      spool,
      isDatabaseAway: () => this.#writer.isDatabaseAway,
    });
    this.#subscriber = new MqttSubscriber(config.mqtt, {
      onDelivery: (delivery) => this.#takeIn(delivery),
      statistics: this.statistics,
      record: config.mqtt.clientId === undefined
        ? undefined
        : this.#spoolDatabase && new SubscriptionRecord(this.#spoolDatabase, config.mqtt.clientId),
    });
    this.#writer = new Writer(config.database, {
      inbox: this.#inbox,
      statistics: this.statistics,
      spoolDatabase: this.#spoolDatabase,
      onInserted: config.http && ((batch, result) => this.#http?.monitor.onInserted(batch, result)),
    });
    const { statistics } = this;
    const health = new Health(() => ({
      waiting: this.#inbox.inMemory + statistics.spooled,
      storing: this.#writer.attempts + statistics.ended,
      isBrokerConnected: this.#subscriber.connectionStatus.connected,
      connecting: this.#subscriber.attempts,
    }));
    this.#parts = {
      ...{ statistics, health, spool },
      inbox: this.#inbox,
      subscriber: this.#subscriber,
      writer: this.#writer,
      overflow: this.#overflow,
      spoolMaxBytes: config.spool?.maxBytes ?? 0,
    };
    this.#http = this.#serve(config);
    if (config.mqtt.clientId === undefined) {
      log.warning(
        "MQTT_CLIENT_ID is not set: the broker keeps nothing while the logger is away, so that " +
          "messages are lost at every restart and every interruption of the connection.",
      );
    }
    if (this.statistics.found > 0) {
      log.info(`${this.statistics.found} messages are in the spool from before.`);
    }
  }

  #serve({ http, database }: Config): HttpParts | undefined {
    if (http === undefined) return undefined;
    const histograms = new StoreHistograms();
    const monitor = new Monitor(this.#parts, { database, histograms });
    const metrics = new Metrics(monitor, histograms);
    try {
      return { monitor, metrics, server: new HttpServer(http, { monitor, metrics }) };
    } catch (error) {
      metrics.stop();
      this.#spoolDatabase?.close();
      throw error;
    }
  }

  /** The state of the logger at the moment. */
  summary(): Summary {
    return summarize(this.#parts);
  }

  /** Starts; connections are made in the background. `failed` rejects if that ends by a defect. */
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
      setInterval(() => {
        this.#inbox.mark();
        this.#parts.health.look();
      }, LOOK_MS),
      setInterval(() => this.#writer.keepRecords(), RECORDS_MS),
      setInterval(() => log.info(`In the course of this run: ${this.statistics}.`), ACCOUNT_MS),
    );
    return { failed: failed.promise };
  }

  /**
   * Stops taking messages in, commits and acknowledges what is in hand within ten seconds, and
   * disconnects; what the database does not take in time goes to the spool. Returns how many
   * messages could not be finished; those that the broker keeps for this client, it sends again.
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
      this.#drops.flush();
    }
    const { waiting } = this.statistics;
    if (waiting !== this.#inbox.inMemory) {
      log.error(
        `The counts do not add up: ${this.#inbox.inMemory} messages are in memory, ` +
          `${this.statistics}. This is a defect of the logger.`,
      );
    }
    this.#spoolDatabase?.close();
    return waiting;
  }

  /** Resolves when everything in hand is stored or in the spool, or there is no more time. */
  async #untilSafe(): Promise<void> {
    const { signal } = this.#stopWriting;
    const startMs = performance.now();
    while (performance.now() - startMs < DRAIN_TIMEOUT_MS) {
      const nowMs = performance.now();
      const isWaitedFor = this.#inbox.underWay.some(({ takenMs }) =>
        nowMs - takenMs < INSERT_PATIENCE_MS
      );
      if (this.#inbox.inMemory === 0 && !isWaitedFor) return;
      await sleep(POLL_MS, signal);
    }
  }

  #takeIn(delivery: Delivery): void {
    this.statistics.received++;
    if (log.isDebug()) {
      log.debug(`Received on '${delivery.topic}': ${shortenPayload(delivery.payload)}`);
    }
    if (this.#inbox.push(delivery)) return;
    this.statistics.outcomes.dropped++;
    this.#drops.warning(() =>
      `Dropped a QoS 0 message on '${delivery.topic}': neither the database nor a spool keeps up, ` +
      "and the broker would not send it again"
    );
  }
}
