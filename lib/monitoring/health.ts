/**
 * Detects a stuck logger: work that could be done and is not, which only a restart of the program
 * fixes. An unavailable database or broker is not such a case.
 */

import { DEFAULT_TUNING, type Tuning } from "../config/tuning.ts";

/**
 * Time without an attempt to connect to the broker after which connecting counts as stuck. Longer
 * than any attempt together with the delay before the next one.
 */
const MAX_SILENCE_MS = 180_000;

/** After a longer time between two ticks, the process itself was suspended: the timers start over. */
const MAX_TICK_MS = 10_000;

/** The values that the health is derived from. `storing` and `connecting` grow with any progress. */
export interface Pulse {
  /** Messages without an outcome: in memory, in an insert, or on disk. */
  readonly waiting: number;
  /**
   * Messages with an outcome, plus attempts to connect to the database. Moving messages from memory
   * to disk does not count: it happens although nothing is stored.
   */
  readonly storing: number;
  readonly isBrokerConnected: boolean;
  /** Number of attempts to connect to the broker. */
  readonly connecting: number;
}

/** Derives the health from a pulse that is sampled about once a second. */
export class Health {
  readonly #takePulse: () => Pulse;
  readonly #stuckAfterMs: number;
  #tickMs = -Infinity;
  #storing = -1;
  #storingMs = 0;
  #connecting = -1;
  #connectingMs = 0;

  constructor(
    takePulse: () => Pulse,
    { stuckAfterMs }: Pick<Tuning, "stuckAfterMs"> = DEFAULT_TUNING,
  ) {
    this.#takePulse = takePulse;
    this.#stuckAfterMs = stuckAfterMs;
  }

  /** Samples the pulse. Call it about once a second; `nowMs` is the value of `performance.now()`. */
  tick(nowMs: number = performance.now()): void {
    const { waiting, storing, isBrokerConnected, connecting } = this.#takePulse();
    const wasSuspended = nowMs - this.#tickMs > MAX_TICK_MS;
    this.#tickMs = nowMs;
    if (wasSuspended || waiting === 0 || storing !== this.#storing) this.#storingMs = nowMs;
    if (wasSuspended || isBrokerConnected || connecting !== this.#connecting) {
      this.#connectingMs = nowMs;
    }
    this.#storing = storing;
    this.#connecting = connecting;
  }

  /** What is stuck, in words without a full stop; undefined if the logger is healthy. */
  problem(): string | undefined {
    const stuckMs = this.#tickMs - this.#storingMs;
    if (stuckMs >= this.#stuckAfterMs) {
      return `messages are waiting, but no insert was completed or tried for ${seconds(stuckMs)}`;
    }
    const silenceMs = this.#tickMs - this.#connectingMs;
    if (silenceMs >= MAX_SILENCE_MS) {
      return `no attempt to connect to the broker for ${seconds(silenceMs)}`;
    }
    return undefined;
  }
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}
