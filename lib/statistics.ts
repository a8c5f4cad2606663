/**
 * What became of the messages. Each message taken from the broker ends in exactly one outcome;
 * `received` is the sum of the outcomes and of what still waits.
 */

/** The outcomes that a message can end in. */
export type Outcome = "stored" | "duplicate" | "unknown" | "disabled" | "rejected" | "dropped";

/** Counters from the start of the program. */
export class Statistics {
  /** Messages handed over by the broker, redeliveries of what was still in hand aside. */
  received = 0;
  /** Messages handed over again, after a reconnection, while they were still in hand. */
  redelivered = 0;
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

  /** Messages that have no outcome yet. */
  get waiting(): number {
    return Object.values(this.outcomes).reduce((rest, count) => rest - count, this.received);
  }

  /** One line for the log. */
  toString(): string {
    const { stored, duplicate, unknown, disabled, rejected, dropped } = this.outcomes;
    return [
      `${this.received} messages received`,
      `${stored} stored`,
      `${duplicate} duplicates`,
      `${unknown} of unknown sensors`,
      `${disabled} of disabled sensors`,
      `${rejected} rejected`,
      ...(this.redelivered > 0 ? [`${this.redelivered} redelivered while in hand`] : []),
      ...(dropped > 0 ? [`${dropped} dropped`] : []),
      `${this.waiting} waiting`,
    ].join(", ");
  }
}
