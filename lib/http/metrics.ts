/** The metrics in the text format of Prometheus. The only module that imports the metrics library. */

import process from "node:process";
import prometheus from "prom-client";
import type { ConnectionStatus } from "../common/connection_state.ts";
import type { Histogram, StoreHistograms } from "../monitoring/histograms.ts";
import type { Monitor } from "../monitoring/monitor.ts";
import { RECEIVE_MAXIMUM } from "../message/delivery.ts";
import type { Summary } from "../monitoring/status.ts";

/** Maximum number of sensors with a separate time series, to limit the load on Prometheus. */
const MAX_SENSOR_SERIES = 2_000;

/** Interval of the timer whose delay is measured. */
const LAG_MS = 100;

const OUTCOMES = ["stored", "duplicate", "unknown", "disabled", "rejected", "dropped"] as const;

/** Collects the metrics at each request. The owner calls `stop` at the end. */
export class Metrics {
  readonly #registry = new prometheus.Registry();
  readonly #monitor: Monitor;
  readonly #lag: LagMeter = new LagMeter();
  #summary: Summary;

  constructor(monitor: Monitor, histograms: StoreHistograms) {
    this.#monitor = monitor;
    this.#summary = monitor.summary();
    this.#registerCounters();
    this.#registerState();
    this.#registerSensors();
    this.#registerProcess();
    const { latencies, batchRows, batchDurations } = histograms;
    this.#histogram(
      "kraken_reading_latency_seconds",
      "Time from the timestamp of a reading to its commit.",
      latencies,
    );
    this.#histogram("kraken_batch_rows", "Readings per insert.", batchRows);
    this.#histogram(
      "kraken_batch_duration_seconds",
      "Duration of an insert.",
      batchDurations,
    );
  }

  /** The content type of the text format, with its version. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /** All metrics with their current values. */
  async text(): Promise<string> {
    // A label that appears later would start another time series of each sensor.
    await this.#monitor.untilLabelled();
    this.#summary = this.#monitor.summary();
    return await this.#registry.metrics();
  }

  /** Stops the timer that measures delays. */
  stop(): void {
    this.#lag.stop();
  }

  #registerCounters(): void {
    const counts = (): Summary["counts"] => this.#summary.counts;
    this.#counter(
      "kraken_messages_received_total",
      "Messages received from the broker.",
      () => counts().received,
    );
    this.#counter(
      "kraken_messages_redelivered_total",
      "Messages that the broker delivered again while they were in flight.",
      () => counts().redelivered,
    );
    const registers = [this.#registry];
    new prometheus.Counter({
      name: "kraken_messages_total",
      help: "Messages by outcome.",
      labelNames: ["outcome"],
      registers,
      collect(): void {
        this.reset();
        for (const outcome of OUTCOMES) this.inc({ outcome }, counts()[outcome]);
      },
    });
    this.#counter(
      "kraken_broker_reconnects_total",
      "Number of reconnections to the broker.",
      () => this.#summary.broker.reconnects,
    );
    this.#counter(
      "kraken_database_reconnects_total",
      "Number of recovered outages of the database.",
      () => this.#summary.database.reconnects,
    );
  }

  #registerState(): void {
    const connected = ({ connected }: ConnectionStatus): number => connected ? 1 : 0;
    this.#gauge(
      "kraken_broker_connected",
      "1 if the connection to the broker works, else 0.",
      () => connected(this.#summary.broker),
    );
    this.#gauge(
      "kraken_database_connected",
      "1 if the database accepts readings, else 0.",
      () => connected(this.#summary.database),
    );
    this.#gauge(
      "kraken_healthy",
      "0 if the logger itself is stuck, else 1.",
      () => this.#summary.problem === null ? 1 : 0,
    );
    this.#gauge(
      "kraken_waiting_messages",
      "Messages in memory that are not stored yet.",
      () => this.#summary.counts.waiting,
    );
    this.#gauge(
      "kraken_waiting_messages_max",
      "Maximum number of unacknowledged messages (MQTT receive maximum).",
      () => RECEIVE_MAXIMUM,
    );
    this.#gauge(
      "kraken_oldest_waiting_seconds",
      "Age of the oldest waiting message, in memory or on disk; 0 if none waits.",
      () => (this.#summary.oldestWaitingMs ?? 0) / 1000,
    );
    if (this.#summary.spool === null) return;
    this.#gauge(
      "kraken_spool_messages",
      "Messages on disk that are not stored yet.",
      () => this.#summary.spool?.messages ?? 0,
    );
    this.#gauge(
      "kraken_spool_bytes",
      "Size of the spool in use.",
      () => this.#summary.spool?.bytes ?? 0,
    );
    this.#gauge(
      "kraken_spool_max_bytes",
      "Maximum size of the spool.",
      () => this.#summary.spool?.maxBytes ?? 0,
    );
  }

  #registerSensors(): void {
    const { activity } = this.#monitor;
    this.#gauge(
      "kraken_sensors",
      "Sensors that have published since the start, at most 5000.",
      () => activity.size,
    );
    const registers = [this.#registry];
    new prometheus.Gauge({
      name: "kraken_sensor_last_seen_timestamp_seconds",
      help:
        `Time when the last reading of a sensor was stored, for at most ${MAX_SENSOR_SERIES} sensors.`,
      labelNames: ["uuid", "sid", "label"],
      registers,
      collect(): void {
        this.reset();
        const stored = activity.list().filter(({ state }) => state === "stored");
        for (const { uuid, sid, label, seenMs } of stored.slice(0, MAX_SENSOR_SERIES)) {
          this.set({ uuid, sid, label: label ?? "" }, (seenMs ?? 0) / 1000);
        }
      },
    });
    this.#gauge(
      "kraken_sensors_left_out",
      "Sensors without a series of kraken_sensor_last_seen_timestamp_seconds, because of its limit.",
      () => Math.max(0, activity.storedCount - MAX_SENSOR_SERIES),
    );
  }

  /** The library's own metrics of the process need files that Deno does not allow to read. */
  #registerProcess(): void {
    this.#gauge("kraken_build_info", "The version of the logger.", () => 1, {
      version: this.#summary.version,
    });
    this.#gauge(
      "process_start_time_seconds",
      "Start time of the process since the Unix epoch.",
      () => this.#summary.startedMs / 1000,
    );
    this.#gauge(
      "process_resident_memory_bytes",
      "Resident memory size.",
      () => Deno.memoryUsage().rss,
    );
    this.#gauge(
      "process_heap_bytes",
      "Used heap of the JavaScript engine.",
      () => Deno.memoryUsage().heapUsed,
    );
    this.#counter("process_cpu_seconds_total", "User and system CPU time.", () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1e6;
    });
    this.#gauge(
      "kraken_event_loop_lag_seconds",
      "Maximum delay of a timer in the current and the previous minute.",
      () => this.#lag.longestMs / 1000,
    );
  }

  #counter(name: string, help: string, read: () => number): void {
    new prometheus.Counter({
      name,
      help,
      registers: [this.#registry],
      collect(): void {
        this.reset();
        this.inc(read());
      },
    });
  }

  #gauge(name: string, help: string, read: () => number, labels = {}): void {
    new prometheus.Gauge({
      name,
      help,
      labelNames: Object.keys(labels),
      registers: [this.#registry],
      collect(): void {
        this.set(labels, read());
      },
    });
  }

  /** Replaces the library's own histogram, which observes only one value at a time. */
  #histogram(name: string, help: string, histogram: Histogram): void {
    const metric = {
      name,
      aggregator: "sum",
      get: (): Promise<unknown> => {
        let count = 0;
        const values = [...histogram.bounds, "+Inf"].map((le, index) => ({
          metricName: `${name}_bucket`,
          labels: { le },
          value: count += histogram.counts[index] ?? 0,
        }));
        return Promise.resolve({
          ...{ name, help, type: "histogram", aggregator: "sum" },
          values: [
            ...values,
            { metricName: `${name}_sum`, labels: {}, value: histogram.sum },
            { metricName: `${name}_count`, labels: {}, value: count },
          ],
        });
      },
    };
    this.#registry.registerMetric(metric as unknown as prometheus.Metric);
  }
}

/**
 * Measures the delay of a timer, which shows how long other work blocked the event loop. Reading the
 * maximum does not reset it, so several clients may read it.
 */
class LagMeter {
  #longestMs = 0;
  #longestBeforeMs = 0;
  #lastMs = performance.now();
  #minuteMs = this.#lastMs;
  readonly #timer = setInterval(() => this.#tick(performance.now()), LAG_MS);

  /** The longest delay of the last one to two minutes, in ms. */
  get longestMs(): number {
    return Math.max(this.#longestMs, this.#longestBeforeMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #tick(nowMs: number): void {
    if (nowMs - this.#minuteMs >= 60_000) {
      this.#longestBeforeMs = this.#longestMs;
      this.#longestMs = 0;
      this.#minuteMs = nowMs;
    }
    this.#longestMs = Math.max(this.#longestMs, nowMs - this.#lastMs - LAG_MS);
    this.#lastMs = nowMs;
  }
}
