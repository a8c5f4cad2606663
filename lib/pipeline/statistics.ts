/**
 * Counts of messages by outcome. Each message ends in exactly one outcome: the messages received
 * and those found in the spool are the sum of the outcomes, of the messages in the spool and of
 * those that wait in memory.
 */

import { formatCount } from "../common/text.ts";

/** The outcomes that a message can end in. */
export type Outcome =
  | "stored"
  | "duplicate"
  | "unknown"
  | "disabled"
  | "rejected"
  | "dropped";

/** The counts of the spool. */
export interface SpoolCounts {
  /** Messages on disk that wait for the database. */
  readonly count: number;
  /** Messages that were in the spool when its file was damaged, and that could not be read. */
  readonly unreadable: number;
}

/** The last message that was rejected, or whose sensor is unknown. */
export interface LastRefusal {
  /** In ms since 1970-01-01 00:00 UTC. */
  readonly timeMs: number;
  readonly topic: string;
  /** In words, without a full stop. */
  readonly reason: string;
}

/** Longest topic and reason that are shown: every viewer receives them every second. */
const MAX_TOPIC = 120;
const MAX_REASON = 200;

/** A message that was refused just now. */
export function createLastRefusal(topic: string, reason: string): LastRefusal {
  return {
    timeMs: Date.now(),
    topic: shorten(topic, MAX_TOPIC),
    reason: shorten(reason, MAX_REASON),
  };
}

function shorten(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length)}…`;
}

/** Counters since the start of the program. */
export class Statistics {
  /** Messages that an earlier run left in the spool. */
  readonly found: number;
  readonly #spool: SpoolCounts;

  /** Messages received from the broker, without redeliveries of messages still in flight. */
  received = 0;
  /** Messages received again, after a reconnection, while they were still in flight. */
  redelivered = 0;
  lastRejected: LastRefusal | null = null;
  lastUnknown: LastRefusal | null = null;
  readonly outcomes: Record<Outcome, number> = {
    /** New rows. */
    stored: 0,
    /** The row existed already: same sensor, same time. */
    duplicate: 0,
    /** No sensor of this uuid and sid is registered. */
    unknown: 0,
    /** The sensor is registered but not enabled. */
    disabled: 0,
    /** Not a valid reading, or one that the columns of the table cannot hold. */
    rejected: 0,
    /** QoS 0 messages for which there was no room in memory. */
    dropped: 0,
  };

  constructor(spool: SpoolCounts = { count: 0, unreadable: 0 }) {
    this.#spool = spool;
    this.found = spool.count;
  }

  /** Messages on disk in the spool. */
  get spooled(): number {
    return this.#spool.count;
  }

  /** Messages that have an outcome. */
  get ended(): number {
    return Object.values(this.outcomes).reduce((sum, count) => sum + count, 0);
  }

  /** Messages without an outcome that are in memory only. */
  get waiting(): number {
    return this.received + this.found - this.ended - this.spooled - this.#spool.unreadable;
  }

  /** One line for the log. */
  toString(): string {
    const { stored, duplicate, unknown, disabled, rejected, dropped } = this.outcomes;
    const { unreadable } = this.#spool;
    return [
      `${formatCount(this.received, "message")} received`,
      ...(this.found > 0 ? [`${this.found} found in the spool`] : []),
      `${stored} stored`,
      formatCount(duplicate, "duplicate"),
      `${unknown} of unknown sensors`,
      `${disabled} of disabled sensors`,
      `${rejected} rejected`,
      ...(this.redelivered > 0 ? [`${this.redelivered} redelivered while in flight`] : []),
      ...(dropped > 0 ? [`${dropped} dropped`] : []),
      ...(unreadable > 0 ? [`${unreadable} unreadable in the spool`] : []),
      ...(this.spooled > 0 ? [`${this.spooled} in the spool`] : []),
      `${this.waiting} waiting`,
    ].join(", ");
  }
}
