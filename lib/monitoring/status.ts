/**
 * What the logger tells of itself over HTTP, as JSON: the shapes of `/api/status` and of the events
 * of `/api/events`, which the status page is made of. Shapes, and no code.
 *
 * Times are in ms since 1970-01-01 00:00 UTC, by the clock of the logger's host.
 */

import type { ConnectionStatus } from "../common/connection_state.ts";
import type { LastRefusal, Outcome } from "../pipeline/statistics.ts";

/** What waits on disk. */
export interface SpoolStatus {
  readonly messages: number;
  readonly bytes: number;
  readonly maxBytes: number;
  /** Why it takes no more messages; null where it does. */
  readonly problem: string | null;
}

/** The state of the logger, without what has a length that grows. */
export interface Summary {
  readonly version: string;
  readonly startedMs: number;
  readonly nowMs: number;
  /** Why the logger is not well although nothing outside fails; null where it is. */
  readonly problem: string | null;
  readonly broker: ConnectionStatus;
  readonly database: ConnectionStatus;
  /** Since the start of the program. `waiting` and `spooled` are what has no outcome yet. */
  readonly counts: Readonly<Record<Outcome, number>> & {
    readonly received: number;
    readonly redelivered: number;
    readonly found: number;
    readonly spooled: number;
    readonly waiting: number;
  };
  /**
   * For how long the oldest message in memory has waited, or the oldest one in the spool, whichever
   * is longer; null where nothing waits.
   */
  readonly oldestWaitingMs: number | null;
  /** Null without a `SPOOL_DIRECTORY`. */
  readonly spool: SpoolStatus | null;
  readonly lastRejected: LastRefusal | null;
  readonly lastUnknown: LastRefusal | null;
}

/** What happened in one second. */
export interface Sample {
  /** The second's end. */
  readonly timeMs: number;
  /** Messages in this second. */
  readonly received: number;
  readonly stored: number;
  /** Median and greatest time from a reading's timestamp to its commit; null where none was stored. */
  readonly latencyMs: number | null;
  readonly latencyMaxMs: number | null;
  /** Messages in memory and on disk at the second's end. */
  readonly waiting: number;
  readonly spooled: number;
}

/**
 * Whether the last reading of a sensor was stored, or why not: `unknown` where it is not registered,
 * `disabled` where it is not enabled. `silent` is a sensor that is registered and enabled, and has
 * not published since the start of the program.
 */
export type SensorState = "stored" | "unknown" | "disabled" | "silent";

/** One sensor since the start of the program. */
export interface SensorStatus {
  /** With hyphens. */
  readonly uuid: string;
  readonly sid: number;
  /** Column `label` of the table `sensors`; null where there is none. */
  readonly label: string | null;
  /** As published; empty where there was none. */
  readonly unit: string;
  readonly state: SensorState;
  /** Of the newest reading: value, as a text since a number need not fit into JSON, … */
  readonly value: string;
  /** … and its timestamp. Empty and null before the first one. */
  readonly timeMs: number | null;
  /** When a reading was last stored, or found not to be; null before the first one. */
  readonly seenMs: number | null;
  /** Usual time between two readings; null until it is known. */
  readonly intervalMs: number | null;
  /** The last values, oldest first: at most 60, at most one a second; null what is not finite. */
  readonly recent: readonly (number | null)[];
}

/** A sensor, and its index in `Status.sensors`. */
export type SensorEntry = SensorStatus & { readonly index: number };

/**
 * Answer of `/api/status`. The same is what `/api/events` begins with: the event `status` without
 * the sensors, and events `sensors` with some of them each, an array of `SensorEntry`.
 */
export interface Status extends Summary {
  /** One for each second, oldest first: the last 15 minutes. */
  readonly history: readonly Sample[];
  readonly sensors: readonly SensorStatus[];
  /** Sensors that publish but are not in this list, which has 5,000 at most, 1,000 unknown ones. */
  readonly sensorsLeftOut: number;
}

/** What has changed of a sensor: its index in `Status.sensors`, and the fields of that name. */
export type SensorChange = readonly [
  index: number,
  state: SensorState,
  value: string,
  timeMs: number | null,
  seenMs: number | null,
  intervalMs: number | null,
];

/** Event `update` of `/api/events`, once a second. */
export interface Update extends Summary {
  readonly sample: Sample;
  readonly changes: readonly SensorChange[];
  /** Sensors that are new, or whose label or unit has changed. */
  readonly sensors: readonly SensorEntry[];
  readonly sensorsLeftOut: number;
}
