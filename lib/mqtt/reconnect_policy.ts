/**
 * When to connect to the broker again after a connection has ended, and how long the next
 * connection must last before the outage counts as over.
 */

import { Backoff } from "../common/backoff.ts";
import type { Tuning } from "../config/tuning.ts";

/**
 * Delays after another client has taken the session over: two clients that take it from each other
 * in turn get slower and slower. Longer delays would leave too many messages in the broker's queue
 * when the other client is gone.
 */
const TAKEOVER_DELAYS = { firstDelayMs: 1_000, maxDelayMs: 60_000 };

/**
 * Connections in a row that are accepted at once and soon end without a reason, from which on a
 * takeover is suspected: brokers that speak MQTT 3.1.1, and Mosquitto before 2.0.15, do not report
 * it. The connections of a broker that restarts are not in a row: it refuses some in between.
 */
const SUSPICIOUS_ENDS = 5;

/**
 * How long the next connection must last before it counts as the end of the outage: by default no
 * time, after a connection that ended at once a little longer, and after a takeover until the other
 * client has had the time to return (`Tuning.takeoverDoubtMs`).
 */
const NO_DOUBT_MS = 0;
const SHORT_LIVED_DOUBT_MS = 500;

/** How a connection ended. */
export interface ConnectionEnd {
  /** How long the connection had lasted. */
  readonly heldMs: number;
  /** Whether the broker reported that another client has taken the session over. */
  readonly takenOver: boolean;
  /** Whether it ended without a reason, with a session that another client could have taken over. */
  readonly unexplained: boolean;
}

/** Follows the connections of one subscriber. */
export class ReconnectPolicy {
  readonly #backoff: Backoff;
  readonly #takeoverBackoff = new Backoff(TAKEOVER_DELAYS);
  /** A connection that has lasted this long, longer than any delay, resets the backoff. */
  readonly #stableAfterMs: number;
  readonly #takeoverDoubtMs: number;
  #unexplainedEnds = 0;
  #doubtMs = NO_DOUBT_MS;

  constructor(
    { maxReconnectDelayMs, takeoverDoubtMs }: Pick<
      Tuning,
      "maxReconnectDelayMs" | "takeoverDoubtMs"
    >,
  ) {
    this.#backoff = new Backoff({ maxDelayMs: maxReconnectDelayMs });
    this.#stableAfterMs = 2 * maxReconnectDelayMs;
    this.#takeoverDoubtMs = takeoverDoubtMs;
  }

  /** How long the next connection must last before it is logged; 0: log it at once. */
  get doubtMs(): number {
    return this.#doubtMs;
  }

  /** Whether the last connections probably ended because another client has the same client id. */
  get isTakeoverSuspected(): boolean {
    return this.#unexplainedEnds >= SUSPICIOUS_ENDS;
  }

  /** The connection has lasted for `doubtMs`. */
  confirmed(): void {
    this.#doubtMs = NO_DOUBT_MS;
  }

  /** No broker accepted a connection. Returns the delay before the next attempt, in ms. */
  refused(): number {
    this.#unexplainedEnds = 0;
    return this.#backoff.nextDelayMs();
  }

  /** A connection has ended. Returns the delay before the next attempt, in ms. */
  ended({ heldMs, takenOver, unexplained }: ConnectionEnd): number {
    const suspiciousMs = this.isTakeoverSuspected ? this.#takeoverDoubtMs : this.#stableAfterMs;
    this.#unexplainedEnds = unexplained && heldMs < suspiciousMs ? this.#unexplainedEnds + 1 : 0;
    if (heldMs >= this.#stableAfterMs) this.#backoff.reset();
    if (heldMs >= this.#takeoverDoubtMs) this.#takeoverBackoff.reset();
    const isTakeover = takenOver || this.isTakeoverSuspected;
    const doubtMs = isTakeover
      ? this.#takeoverDoubtMs
      : heldMs < SHORT_LIVED_DOUBT_MS
      ? SHORT_LIVED_DOUBT_MS
      : NO_DOUBT_MS;
    this.#doubtMs = Math.max(this.#doubtMs, doubtMs);
    return (isTakeover ? this.#takeoverBackoff : this.#backoff).nextDelayMs();
  }
}
