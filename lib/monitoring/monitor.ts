/**
 * The monitor: what the logger tells of itself. The summary is made of what the parts count anyway;
 * sensors and history are kept only where somebody can ask for them, over HTTP.
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
import { SensorLabels } from "./registered_sensors.ts";
import type { Spool } from "../spool/spool.ts";
import { SpoolError } from "../spool/file.ts";
import type { Statistics } from "../pipeline/statistics.ts";
import type { Status, Summary, Update } from "./status.ts";
import type { Decoded } from "../database/storing.ts";
import type { DatabaseState } from "../pipeline/database_state.ts";
import type { InsertListener } from "../pipeline/outcomes.ts";

const SAMPLE_MS = 1_000;

/** Time that labels get until there are some, before somebody is told of sensors without. */
const LABELS_TIMEOUT_MS = 2_000;

/** What is told of. */
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

/** 0 where the file cannot be read at the moment, which the log tells of. */
function usedBytes(spool: Spool): number {
  try {
    return spool.usedBytes;
  } catch (error) {
    if (!(error instanceof SpoolError)) throw error;
    return 0;
  }
}

/** Somebody who wants every update. */
export type Viewer = (update: Update) => void;

export interface MonitorOptions {
  readonly database: DatabaseConfig;
  readonly histograms: StoreHistograms;
}

/** Sensors and history, from `start` until `stop`. */
export class Monitor {
  readonly #parts: MonitoredParts;
  readonly #histograms: StoreHistograms;
  readonly #history = new History();
  readonly #labels: SensorLabels;
  readonly #viewers = new Set<Viewer>();
  readonly activity = new SensorActivity();
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(parts: MonitoredParts, { database, histograms }: MonitorOptions) {
    this.#parts = parts;
    this.#histograms = histograms;
    this.#labels = new SensorLabels(database, (rows) => this.activity.register(rows));
  }

  start(): void {
    this.#timer = setInterval(() => this.#sample(), SAMPLE_MS);
  }

  /** Ends what runs in the background. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#labels.stop();
  }

  /** Told by the writer. */
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
    this.activity.note(batch, result, { nowMs, timesMs });
    this.#histograms.noteBatch(batch.length, result.durationMs);
    if (result.stored === 0) return;
    this.#history.note(latenciesMs.subarray(0, count));
    this.#histograms.note(latenciesMs.subarray(0, count));
  };

  summary(): Summary {
    return summarize(this.#parts);
  }

  status(): Status {
    this.#labels.refresh();
    return {
      ...this.summary(),
      history: this.#history.samples,
      sensors: this.activity.list(),
      sensorsLeftOut: this.activity.leftOut,
    };
  }

  /** Resolves when the labels have been read, or cannot be for the time being. */
  async untilLabelled(): Promise<void> {
    await this.#labels.untilKnown(LABELS_TIMEOUT_MS);
  }

  /** Returns the status as it is, and sends every update from then on until `removeViewer`. */
  addViewer(viewer: Viewer): Status {
    // What has changed is in the status. Others, if there are any, are still to be told of it.
    if (this.#viewers.size === 0) this.activity.takeChanges();
    this.#viewers.add(viewer);
    return this.status();
  }

  removeViewer(viewer: Viewer): void {
    this.#viewers.delete(viewer);
  }

  /** Ends a second. Nothing else does, so that no two samples or values are of the same one. */
  #sample(): void {
    const { received, outcomes, waiting, spooled } = this.#parts.statistics;
    this.activity.digest();
    const sample = this.#history.sample({ received, stored: outcomes.stored, waiting, spooled });
    if (this.#viewers.size === 0) return;
    this.#labels.refresh();
    const update: Update = {
      ...this.summary(),
      sample,
      ...this.activity.takeChanges(),
      sensorsLeftOut: this.activity.leftOut,
    };
    for (const viewer of this.#viewers) viewer(update);
  }
}
