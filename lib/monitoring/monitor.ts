/**
 * The monitor: the state of the logger for HTTP and systemd. The summary is made of what the parts
 * count anyway; sensors and history are kept only if HTTP is configured.
 */

import metadata from "../../deno.json" with { type: "json" };
import type { DatabaseConfig } from "../config/config.ts";
import type { Delivery } from "../message/delivery.ts";
import type { Health } from "./health.ts";
import { History } from "./history.ts";
import type { Inbox } from "../pipeline/inbox.ts";
import type { StoreHistograms } from "./histograms.ts";
import type { MqttSubscriber } from "../mqtt/subscriber.ts";
import type { Overflow } from "../pipeline/overflow.ts";
import { SensorActivity } from "./sensor_activity.ts";
import { RegisteredSensors } from "./registered_sensors.ts";
import type { Spool } from "../spool/spool.ts";
import { SpoolError } from "../spool/file.ts";
import type { Statistics } from "../pipeline/statistics.ts";
import type { Status, Summary, Update } from "./status.ts";
import type { Decoded } from "../database/storing.ts";
import type { DatabaseState } from "../pipeline/database_state.ts";
import type { InsertListener } from "../pipeline/outcomes.ts";

const SAMPLE_MS = 1_000;

/** How long the first answer waits for the labels of the sensors. */
const LABELS_TIMEOUT_MS = 2_000;

/** The parts of the logger that the summary is made of. */
export interface MonitoredParts {
  readonly statistics: Statistics;
  readonly inbox: Inbox;
  readonly subscriber: MqttSubscriber;
  readonly state: DatabaseState;
  readonly health: Health;
  readonly spool: Spool | undefined;
  readonly spoolMaxBytes: number;
  readonly overflow: Overflow | undefined;
}

const startedMs = Date.now();

/** The state of the logger at the moment. */
export function summarize(parts: MonitoredParts): Summary {
  const { statistics, subscriber, state, spool, overflow } = parts;
  const { received, redelivered, found, spooled, waiting } = statistics;
  return {
    version: metadata.version,
    startedMs,
    nowMs: Date.now(),
    problem: parts.health.problem() ?? null,
    broker: subscriber.connectionStatus,
    database: state.status,
    counts: { ...statistics.outcomes, received, redelivered, found, spooled, waiting },
    oldestWaitingMs: oldestWaitingMs(parts),
    spool: spool === undefined ? null : {
      messages: spool.count,
      bytes: usedBytes(spool),
      maxBytes: parts.spoolMaxBytes,
      problem: overflow?.refusal ?? null,
    },
    lastRejected: statistics.lastRejected,
    lastUnknown: statistics.lastUnknown,
  };
}

function oldestWaitingMs({ inbox, spool }: MonitoredParts): number | null {
  const waits = [inbox.oldestWaitingMs ?? -1, spool?.oldestAgeMs ?? -1];
  const longest = Math.max(...waits);
  return longest < 0 ? null : Math.round(longest);
}

/** 0 if the file cannot be read at the moment, which the log reports. */
function usedBytes(spool: Spool): number {
  try {
    return spool.usedBytes;
  } catch (error) {
    if (!(error instanceof SpoolError)) throw error;
    return 0;
  }
}

/** Receives every update, once a second. */
export type Viewer = (update: Update) => void;

/** What the monitor needs beside the parts of the logger. */
export interface MonitorOptions {
  readonly database: DatabaseConfig;
  readonly histograms: StoreHistograms;
}

/** Keeps sensors and history from `start` until `stop`. */
export class Monitor {
  readonly #parts: MonitoredParts;
  readonly #histograms: StoreHistograms;
  readonly #history = new History();
  readonly #registered: RegisteredSensors;
  readonly #viewers = new Set<Viewer>();
  readonly activity = new SensorActivity();
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(parts: MonitoredParts, { database, histograms }: MonitorOptions) {
    this.#parts = parts;
    this.#histograms = histograms;
    this.#registered = new RegisteredSensors(database, (rows) => this.activity.register(rows));
  }

  /** Starts to sample the history. The owner awaits `stop` at the end. */
  start(): void {
    this.#timer = setInterval(() => this.#sample(), SAMPLE_MS);
  }

  /** Stops the timer and closes the connection that reads the registered sensors. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#registered.stop();
  }

  /** Records an insert. Called by the writer. */
  readonly onInserted: InsertListener = (batch, result) => {
    const nowMs = Date.now();
    const notStored = result.unknown.length + result.disabled.length === 0
      ? undefined
      : new Set([...result.unknown, ...result.disabled]);
    const timesMs = new Float64Array(batch.length);
    const latenciesMs = new Float64Array(batch.length);
    let count = 0;
    for (let index = 0; index < batch.length; index++) {
      const timeMs = Number((batch[index] as Decoded<Delivery>).reading.timeMicros) / 1000;
      timesMs[index] = timeMs;
      if (!notStored?.has(index)) latenciesMs[count++] = Math.max(0, nowMs - timeMs);
    }
    this.activity.record(batch, result, { nowMs, timesMs });
    this.#histograms.recordBatch(batch.length, result.durationMs);
    if (result.stored === 0) return;
    this.#history.record(latenciesMs.subarray(0, count));
    this.#histograms.record(latenciesMs.subarray(0, count));
  };

  /** The state of the logger at the moment. */
  summary(): Summary {
    return summarize(this.#parts);
  }

  /** The summary, the history and all sensors. Refreshes the labels in the background. */
  status(): Status {
    this.#registered.refresh();
    return {
      ...this.summary(),
      history: this.#history.samples,
      sensors: this.activity.list(),
      sensorsLeftOut: this.activity.leftOut,
    };
  }

  /** Resolves when the labels have been read, or after a timeout. */
  async untilLabelled(): Promise<void> {
    await this.#registered.untilKnown(LABELS_TIMEOUT_MS);
  }

  /** Returns the current status, and calls `viewer` with every later update until `removeViewer`. */
  addViewer(viewer: Viewer): Status {
    // The status contains the pending changes. Other viewers, if any, still need them as an update.
    if (this.#viewers.size === 0) this.activity.takeChanges();
    this.#viewers.add(viewer);
    return this.status();
  }

  removeViewer(viewer: Viewer): void {
    this.#viewers.delete(viewer);
  }

  /** Ends a second. Nothing else does, so no two samples or values belong to the same second. */
  #sample(): void {
    const { received, outcomes, waiting, spooled } = this.#parts.statistics;
    this.activity.digest();
    const sample = this.#history.sample({ received, stored: outcomes.stored, waiting, spooled });
    if (this.#viewers.size === 0) return;
    this.#registered.refresh();
    const update: Update = {
      ...this.summary(),
      sample,
      ...this.activity.takeChanges(),
      sensorsLeftOut: this.activity.leftOut,
    };
    for (const viewer of this.#viewers) viewer(update);
  }
}
