/**
 * When to connect to the broker again after a connection has ended, and for how long the next
 * connection is doubted: an outage is told to be over only when a connection has held that long.
 */

import { Backoff, MAX_DELAY_MS } from "../common/retry.ts";

/** A connection that has held this long, longer than any delay, resets the backoff. */
const STABLE_AFTER_MS = 2 * MAX_DELAY_MS;

/**
 * Delays after another client has taken the session over: two clients that take it from each other
 * in turn get slower and slower. Longer ones would leave too much in the broker's queue when the
 * other client is gone.
 */
const TAKEOVER_DELAYS = { firstDelayMs: 1_000, maxDelayMs: 60_000 };

/**
 * So many connections in a row that are accepted at once and end soon without a reason are taken
 * for takeovers: brokers that speak MQTT 3.1.1, and Mosquitto before 2.0.15, do not say so. Those
 * of a broker that restarts are not in a row: it refuses some attempts in between.
 */
const SUSPICIOUS_ENDS = 5;

/**
 * How long the next connection must hold before it is told of as the end of the outage: not at all
 * as a rule, …
 */
const NO_DOUBT_MS = 0;

/** … for a while after one that ended as soon as it was there, … */
const SHORT_LIVED_DOUBT_MS = 500;

/** … and until the other client has had the time to come back after a takeover. */
const TAKEOVER_DOUBT_MS = 2 * TAKEOVER_DELAYS.maxDelayMs;

/** How a connection ended. */
export interface End {
  /** How long it had held. */
  readonly heldMs: number;
  /** Whether the broker said that another client has taken the session over. */
  readonly takenOver: boolean;
  /** Whether it ended without a reason, with a session that another client could have taken over. */
  readonly unexplained: boolean;
}

/** Keeps the account of the connections of one subscriber. */
export class Reconnection {
  readonly #backoff = new Backoff();
  readonly #takeoverBackoff = new Backoff(TAKEOVER_DELAYS);
  #unexplainedEnds = 0;
  #doubtMs = NO_DOUBT_MS;

  /** How long the next connection must hold before it is told of; 0 for not at all. */
  get doubtMs(): number {
    return this.#doubtMs;
  }

  /** Whether the last connections probably ended because another client has the same client id. */
  get isTakeoverSuspected(): boolean {
    return this.#unexplainedEnds >= SUSPICIOUS_ENDS;
  }

  /** The connection has held for as long as it was doubted. */
  confirmed(): void {
    this.#doubtMs = NO_DOUBT_MS;
  }

  /** No broker accepts a connection. Returns the time to wait, in ms. */
  refused(): number {
    this.#unexplainedEnds = 0;
    return this.#backoff.nextDelayMs();
  }

  /** A connection has ended. Returns the time to wait before the next one, in ms. */
  ended({ heldMs, takenOver, unexplained }: End): number {
    const suspiciousMs = this.isTakeoverSuspected ? TAKEOVER_DOUBT_MS : STABLE_AFTER_MS;
    this.#unexplainedEnds = unexplained && heldMs < suspiciousMs ? this.#unexplainedEnds + 1 : 0;
    if (heldMs >= STABLE_AFTER_MS) this.#backoff.reset();
    if (heldMs >= TAKEOVER_DOUBT_MS) this.#takeoverBackoff.reset();
    const isTakeover = takenOver || this.isTakeoverSuspected;
    const doubtMs = isTakeover
      ? TAKEOVER_DOUBT_MS
      : heldMs < SHORT_LIVED_DOUBT_MS
      ? SHORT_LIVED_DOUBT_MS
      : NO_DOUBT_MS;
    this.#doubtMs = Math.max(this.#doubtMs, doubtMs);
    return (isTakeover ? this.#takeoverBackoff : this.#backoff).nextDelayMs();
  }
}
