/**
 * Whether the logger moves. A database or broker that is away is no concern of it: what is looked
 * for is work that could be done and is not, which only a restart of the program would mend.
 */

import { DEFAULT_TUNING, type Tuning } from "../config/tuning.ts";

/** Longer than any delay between two attempts to connect to the broker, and such an attempt. */
const MAX_SILENCE_MS = 180_000;

/** After a longer time between two looks the program itself was stopped, and nothing is known. */
const MAX_LOOK_MS = 10_000;

/** What the health is judged by. Each number grows with any progress. */
export interface Pulse {
  /** Messages without an outcome, in memory or on disk, those under way to the database too. */
  readonly waiting: number;
  /**
   * Messages with an outcome, and attempts to connect to the database. That messages move from
   * memory to disk does not count: they do that while nothing is stored.
   */
  readonly storing: number;
  readonly isBrokerConnected: boolean;
  /** Attempts to connect to the broker. */
  readonly connecting: number;
}

/** Judges by looks that are taken every second or so. */
export class Health {
  readonly #takePulse: () => Pulse;
  readonly #stuckAfterMs: number;
  #lookMs = -Infinity;
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

  /** To be called every second or so. */
  tick(nowMs: number = performance.now()): void {
    const { waiting, storing, isBrokerConnected, connecting } = this.#takePulse();
    const wasStopped = nowMs - this.#lookMs > MAX_LOOK_MS;
    this.#lookMs = nowMs;
    if (wasStopped || waiting === 0 || storing !== this.#storing) this.#storingMs = nowMs;
    if (wasStopped || isBrokerConnected || connecting !== this.#connecting) {
      this.#connectingMs = nowMs;
    }
    this.#storing = storing;
    this.#connecting = connecting;
  }

  /** What stands still although it need not, without a full stop; undefined where all is well. */
  problem(): string | undefined {
    const standstillMs = this.#lookMs - this.#storingMs;
    if (standstillMs >= this.#stuckAfterMs) {
      return `messages wait, and none has been stored or tried for ${seconds(standstillMs)}`;
    }
    const silenceMs = this.#lookMs - this.#connectingMs;
    if (silenceMs >= MAX_SILENCE_MS) {
      return `no attempt to connect to the broker for ${seconds(silenceMs)}`;
    }
    return undefined;
  }
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}
