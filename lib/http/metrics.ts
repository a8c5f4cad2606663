/** The metrics in Prometheus' text format. The only module that knows the metrics library. */

import process from "node:process";
import prometheus from "prom-client";
import type { ConnectionStatus } from "../common/connection_state.ts";
import type { Histogram, StoreHistograms } from "../monitoring/histograms.ts";
import type { Monitor } from "../monitoring/monitor.ts";
import { RECEIVE_MAXIMUM } from "../message/delivery.ts";
import type { Summary } from "../monitoring/status.ts";

/** Sensors whose last reading is told of, so that a monitoring system is not flooded. */
const MAX_SENSORS = 2_000;

/** Time between two looks at how late a timer is. */
const LAG_MS = 100;

const OUTCOMES = ["stored", "duplicate", "unknown", "disabled", "rejected", "dropped"] as const;

/** What is asked whenever somebody looks at the metrics. */
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
    this.#histogram("kraken_batch_rows", "Readings in an insert.", batchRows);
    this.#histogram(
      "kraken_batch_duration_seconds",
      "Time that the database took for an insert.",
      batchDurations,
    );
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** All metrics as they are now. */
  async text(): Promise<string> {
    // A label that comes later would make another time series of each sensor.
    await this.#monitor.untilLabelled();
    this.#summary = this.#monitor.summary();
    return await this.#registry.metrics();
  }

  /** Ends what runs in the background. */
  stop(): void {
    this.#lag.stop();
  }

  #registerCounters(): void {
    const counts = (): Summary["counts"] => this.#summary.counts;
    this.#counter(
      "kraken_messages_received_total",
      "Messages that the broker has handed over.",
      () => counts().received,
    );
    this.#counter(
      "kraken_messages_redelivered_total",
      "Messages that it has handed over again while they were in hand.",
      () => counts().redelivered,
    );
    const registers = [this.#registry];
    new prometheus.Counter({
      name: "kraken_messages_total",
      help: "Messages that have their outcome.",
      labelNames: ["outcome"],
      registers,
      collect(): void {
        this.reset();
        for (const outcome of OUTCOMES) this.inc({ outcome }, counts()[outcome]);
      },
    });
    this.#counter(
      "kraken_broker_reconnects_total",
      "How many times the connection to the broker was lost and made again.",
      () => this.#summary.broker.reconnects,
    );
    this.#counter(
      "kraken_database_reconnects_total",
      "How many times the database was away and back.",
      () => this.#summary.database.reconnects,
    );
  }

  #registerState(): void {
    const connected = ({ connected }: ConnectionStatus): number => connected ? 1 : 0;
    this.#gauge(
      "kraken_broker_connected",
      "1 while the connection to the broker works, else 0.",
      () => connected(this.#summary.broker),
    );
    this.#gauge(
      "kraken_database_connected",
      "1 while the database takes readings, else 0.",
      () => connected(this.#summary.database),
    );
    this.#gauge(
      "kraken_healthy",
      "0 where something stands still in the logger itself, else 1.",
      () => this.#summary.problem === null ? 1 : 0,
    );
    this.#gauge(
      "kraken_waiting_messages",
      "Messages in memory that are not stored yet.",
      () => this.#summary.counts.waiting,
    );
    this.#gauge(
      "kraken_waiting_messages_max",
      "Messages that a broker hands over before the first of them is acknowledged.",
      () => RECEIVE_MAXIMUM,
    );
    this.#gauge(
      "kraken_oldest_waiting_seconds",
      "Age of the oldest message that waits, in memory or on disk; 0 where none does.",
      () => (this.#summary.oldestWaitingMs ?? 0) / 1000,
    );
    if (this.#summary.spool === null) return;
    this.#gauge(
      "kraken_spool_messages",
      "Messages on disk that are not in the database yet.",
      () => this.#summary.spool?.messages ?? 0,
    );
    this.#gauge(
      "kraken_spool_bytes",
      "Bytes of the spool in use.",
      () => this.#summary.spool?.bytes ?? 0,
    );
    this.#gauge(
      "kraken_spool_max_bytes",
      "Bytes that the spool may use.",
      () => this.#summary.spool?.maxBytes ?? 0,
    );
  }

  #registerSensors(): void {
    const { activity } = this.#monitor;
    this.#gauge(
      "kraken_sensors",
      "Sensors that have published since the start, the first 5000.",
      () => activity.size,
    );
    const registers = [this.#registry];
    new prometheus.Gauge({
      name: "kraken_sensor_last_seen_timestamp_seconds",
      help: `When the last reading of a sensor was stored; the first ${MAX_SENSORS} sensors.`,
      labelNames: ["uuid", "sid", "label"],
      registers,
      collect(): void {
        this.reset();
        const stored = activity.list().filter(({ state }) => state === "stored");
        for (const { uuid, sid, label, seenMs } of stored.slice(0, MAX_SENSORS)) {
          this.set({ uuid, sid, label: label ?? "" }, (seenMs ?? 0) / 1000);
        }
      },
    });
    this.#gauge(
      "kraken_sensors_left_out",
      "Stored sensors of which there is no last reading above, because there are too many.",
      () => Math.max(0, activity.storedCount - MAX_SENSORS),
    );
  }

  /** What the library tells of the process is read from files that Deno does not let it read. */
  #registerProcess(): void {
    this.#gauge("kraken_build_info", "The version of the logger.", () => 1, {
      version: this.#summary.version,
    });
    this.#gauge(
      "process_start_time_seconds",
      "When the program was started, since 1970.",
      () => this.#summary.startedMs / 1000,
    );
    this.#gauge(
      "process_resident_memory_bytes",
      "Memory that the program takes.",
      () => Deno.memoryUsage().rss,
    );
    this.#gauge(
      "process_heap_bytes",
      "Memory that its objects take.",
      () => Deno.memoryUsage().heapUsed,
    );
    this.#counter("process_cpu_seconds_total", "Processor time that it has taken.", () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1e6;
    });
    this.#gauge(
      "kraken_event_loop_lag_seconds",
      "The longest delay of a timer in this minute and the one before.",
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

  /** As the library's own, which can only be told of one value at a time. */
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
 * Measures how late timers are: how long something else has kept the program busy. Reading takes
 * nothing away, so that several may read.
 */
class LagMeter {
  #longestMs = 0;
  #longestBeforeMs = 0;
  #lastMs = performance.now();
  #minuteMs = this.#lastMs;
  readonly #timer = setInterval(() => this.#look(performance.now()), LAG_MS);

  /** The longest delay, in ms, since one to two minutes. */
  get longestMs(): number {
    return Math.max(this.#longestMs, this.#longestBeforeMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(nowMs: number): void {
    if (nowMs - this.#minuteMs >= 60_000) {
      this.#longestBeforeMs = this.#longestMs;
      this.#longestMs = 0;
      this.#minuteMs = nowMs;
    }
    this.#longestMs = Math.max(this.#longestMs, nowMs - this.#lastMs - LAG_MS);
    this.#lastMs = nowMs;
  }
}
