/**
 * The JSON shapes of the HTTP API: of `/api/status` and of the events of `/api/events`, which the
 * status page shows. Types only, no code.
 *
 * Times are in ms since 1970-01-01 00:00 UTC, by the clock of the host of the logger.
 */

import type { ConnectionStatus } from "../common/connection_state.ts";
import type { LastRefusal, Outcome } from "../pipeline/statistics.ts";

/** The messages that wait on disk. */
export interface SpoolStatus {
  readonly messages: number;
  /** Size in use, and `SPOOL_MAX_BYTES`. */
  readonly bytes: number;
  readonly maxBytes: number;
  /** Why the spool is not accepting messages, without a full stop; null if it accepts them. */
  readonly problem: string | null;
}

/** The state of the logger, without history and sensors. */
export interface Summary {
  readonly version: string;
  readonly startedMs: number;
  readonly nowMs: number;
  /** What is stuck in the logger itself, without a full stop; null if the logger is healthy. */
  readonly problem: string | null;
  readonly broker: ConnectionStatus;
  readonly database: ConnectionStatus;
  /**
   * Messages since the start of the program, by outcome. `found` were in the spool at the start.
   * `waiting` (in memory) and `spooled` (on disk) have no outcome yet.
   */
  readonly counts: Readonly<Record<Outcome, number>> & {
    readonly received: number;
    readonly redelivered: number;
    readonly found: number;
    readonly spooled: number;
    readonly waiting: number;
  };
  /**
   * Time that the oldest message has waited, in memory or in the spool, whichever is longer; null if
   * no message waits.
   */
  readonly oldestWaitingMs: number | null;
  /** Null if no spool is configured. */
  readonly spool: SpoolStatus | null;
  readonly lastRejected: LastRefusal | null;
  readonly lastUnknown: LastRefusal | null;
}

/** The numbers of one second. */
export interface Sample {
  /** End of the second. */
  readonly timeMs: number;
  /** Messages in this second. */
  readonly received: number;
  readonly stored: number;
  /** Median and maximum time from a reading's timestamp to its commit; null if none was stored. */
  readonly latencyMs: number | null;
  readonly latencyMaxMs: number | null;
  /** Messages in memory and on disk at the end of the second. */
  readonly waiting: number;
  readonly spooled: number;
}

/**
 * `stored`: the last reading of the sensor was stored. `unknown`: it was not, because the sensor is not
 * registered. `disabled`: the sensor is registered but not enabled. `silent`: the sensor is registered
 * and enabled, and has not published since the start of the program.
 */
export type SensorState = "stored" | "unknown" | "disabled" | "silent";

/** The activity of one sensor since the start of the program. */
export interface SensorStatus {
  /** With hyphens. */
  readonly uuid: string;
  readonly sid: number;
  /** Column `label` of the table `sensors`; null if it is empty or missing, or not read yet. */
  readonly label: string | null;
  /** As published; empty if the payload has none. */
  readonly unit: string;
  readonly state: SensorState;
  /** Value of the newest reading, as text because JSON numbers lack its range; empty before the first. */
  readonly value: string;
  /** Timestamp of the newest reading; null before the first one. */
  readonly timeMs: number | null;
  /** When a reading was last stored or refused; null before the first one. */
  readonly seenMs: number | null;
  /** Usual interval between two readings, in ms; null until it is known. */
  readonly intervalMs: number | null;
  /** The last values, oldest first: at most 60, at most one per second; null if not finite. */
  readonly recent: readonly (number | null)[];
}

/** A sensor with its index in `Status.sensors`. */
export type SensorEntry = SensorStatus & { readonly index: number };

/**
 * Answer of `/api/status`. `/api/events` starts with the same in parts: an event `status` with no
 * sensors, then events `sensors`, each with an array of `SensorEntry`.
 */
export interface Status extends Summary {
  /** The last 15 minutes, one sample per second, oldest first. */
  readonly history: readonly Sample[];
  readonly sensors: readonly SensorStatus[];
  /** Sensors that publish but are not in `sensors`, which has at most 5,000, 1,000 of them unknown. */
  readonly sensorsLeftOut: number;
}

/** The changes of a sensor: its index in `Status.sensors`, and new values of the named fields. */
export type SensorChange = readonly [
  index: number,
  state: SensorState,
  value: string,
  timeMs: number | null,
  seenMs: number | null,
  intervalMs: number | null,
];

/** The event `update` of `/api/events`, sent once a second. */
export interface Update extends Summary {
  readonly sample: Sample;
  readonly changes: readonly SensorChange[];
  /** Sensors that are new, or whose label, unit or registration has changed. */
  readonly sensors: readonly SensorEntry[];
  readonly sensorsLeftOut: number;
}
