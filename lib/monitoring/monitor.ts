/**
 * The monitor: the state of the logger for HTTP and systemd. The summary is made of what the parts
 * count anyway; sensors and history are kept only if HTTP is configured.
 */

import metadata from "../../deno.json" with { type: "json" };
import type { DatabaseConfig } from "../config/database.ts";
import type { Health } from "./health.ts";
import type { Inbox } from "../pipeline/inbox.ts";
import type { MqttSubscriber } from "../mqtt/subscriber.ts";
import type { Overflow } from "../pipeline/overflow.ts";
import type { InsertRecorder } from "./insert_recorder.ts";
import type { SensorActivity } from "./sensor_activity.ts";
import { RegisteredSensors } from "./registered_sensors.ts";
import type { Spool } from "../spool/spool.ts";
import { SpoolError } from "../spool/errors.ts";
import type { Statistics } from "../pipeline/statistics.ts";
import type { Status, Summary, Update } from "./status.ts";
import type { DatabaseState } from "../pipeline/database_state.ts";

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
  /** What the writer has inserted. */
  readonly recorder: InsertRecorder;
}

/** Keeps sensors and history from `start` until `stop`. */
export class Monitor {
  readonly #parts: MonitoredParts;
  readonly #recorder: InsertRecorder;
  readonly #registered: RegisteredSensors;
  readonly #viewers = new Set<Viewer>();
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(parts: MonitoredParts, { database, recorder }: MonitorOptions) {
    this.#parts = parts;
    this.#recorder = recorder;
    this.#registered = new RegisteredSensors(database, (rows) => this.activity.register(rows));
  }

  get activity(): SensorActivity {
    return this.#recorder.activity;
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

  /** The state of the logger at the moment. */
  summary(): Summary {
    return summarize(this.#parts);
  }

  /** The summary, the history and all sensors. Refreshes the labels in the background. */
  status(): Status {
    this.#registered.refresh();
    return {
      ...this.summary(),
      history: this.#recorder.history.samples,
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
    const sample = this.#recorder.history.sample({
      received,
      stored: outcomes.stored,
      waiting,
      spooled,
    });
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
