/**
 * What became of the messages. Each message ends in exactly one outcome: what was received and what
 * was found in the spool is the sum of the outcomes, of what is in the spool and of what waits.
 */

/** The outcomes that a message can end in. */
export type Outcome =
  | "stored"
  | "duplicate"
  | "unknown"
  | "disabled"
  | "rejected"
  | "dropped";

/** What there is to count in the spool. */
export interface SpoolCounts {
  /** Messages on disk, for the database to take. */
  readonly count: number;
  /** Messages that were in the spool when its file was damaged, and could not be read any more. */
  readonly unreadable: number;
}

/** The last message that was not stored for one reason. */
export interface LastRefusal {
  readonly timeMs: number;
  readonly topic: string;
  /** In words, without a full stop. */
  readonly reason: string;
}

/** Longest topic and reason that are told of: whoever looks gets them anew every second. */
const MAX_TOPIC = 120;
const MAX_REASON = 200;

/** What is told of a message that was not stored just now. */
export function describeRefusal(topic: string, reason: string): LastRefusal {
  return {
    timeMs: Date.now(),
    topic: shorten(topic, MAX_TOPIC),
    reason: shorten(reason, MAX_REASON),
  };
}

function shorten(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length)}…`;
}

/** Counters from the start of the program. */
export class Statistics {
  /** Messages that an earlier run left in the spool. */
  readonly found: number;
  readonly #spool: SpoolCounts;

  /** Messages handed over by the broker, redeliveries of what was still in hand aside. */
  received = 0;
  /** Messages handed over again, after a reconnection, while they were still in hand. */
  redelivered = 0;
  lastRejected: LastRefusal | null = null;
  lastUnknown: LastRefusal | null = null;
  readonly outcomes: Record<Outcome, number> = {
    /** New rows. */
    stored: 0,
    /** The row was there already: same sensor, same time. */
    duplicate: 0,
    /** No sensor of this uuid and sid is registered. */
    unknown: 0,
    /** The sensor is registered but not enabled. */
    disabled: 0,
    /** Not a reading, or one that the table's columns cannot hold. */
    rejected: 0,
    /** QoS 0 messages for which there was no room. */
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

  /** Messages that have their outcome. */
  get ended(): number {
    return Object.values(this.outcomes).reduce((sum, count) => sum + count, 0);
  }

  /** Messages that have no outcome yet and are in memory only. */
  get waiting(): number {
    return this.received + this.found - this.ended - this.spooled - this.#spool.unreadable;
  }

  /** One line for the log. */
  toString(): string {
    const { stored, duplicate, unknown, disabled, rejected, dropped } = this.outcomes;
    const { unreadable } = this.#spool;
    return [
      `${this.received} messages received`,
      ...(this.found > 0 ? [`${this.found} found in the spool`] : []),
      `${stored} stored`,
      `${duplicate} duplicates`,
      `${unknown} of unknown sensors`,
      `${disabled} of disabled sensors`,
      `${rejected} rejected`,
      ...(this.redelivered > 0 ? [`${this.redelivered} redelivered while in hand`] : []),
      ...(dropped > 0 ? [`${dropped} dropped`] : []),
      ...(unreadable > 0 ? [`${unreadable} unreadable in the spool`] : []),
      ...(this.spooled > 0 ? [`${this.spooled} in the spool`] : []),
      `${this.waiting} waiting`,
    ].join(", ");
  }
}
