/**
 * The overflow: moves to the spool what the database does not take in time.
 *
 * While the database takes everything, nothing touches the disk. When it is away, when something
 * has waited for a second, or when the in-flight window is about to fill, everything goes to the
 * spool at once, and is settled there, so that the broker need not queue; until the database takes
 * batches promptly again.
 */

import { type Inbox, MAX_BATCH_ROWS } from "./inbox.ts";
import { log } from "../common/log.ts";
import { RECEIVE_MAXIMUM } from "../mqtt/connection.ts";
import { describeError, sleep } from "../common/retry.ts";
import type { Spool } from "../spool/spool.ts";
import { SpoolError } from "../spool/file.ts";
import { SpoolProgress } from "../spool/progress.ts";

/** A delivery waits so long in memory before it is moved, and up to one look longer. */
const MAX_WAIT_MS = 1_000;

/** So many deliveries wait in memory at most, half of the in-flight window, … */
const MAX_WAITING = RECEIVE_MAXIMUM / 2;

/** … while no batch is stored promptly for so long. */
const MAX_STALL_MS = 500;

/** Time between two looks at what waits. */
const LOOK_MS = 50;

/** Time between two looks while everything goes to the spool: what comes meanwhile goes together. */
const GATHER_MS = 5;

/** Time between two attempts to write to a spool that refuses. */
const RETRY_MS = 1_000;

/**
 * A spool that refuses again so soon, because a database that is too slow makes room for a few
 * messages at a time, takes messages again only when it has not refused for so long, or is empty.
 */
const DOUBT_MS = 60_000;

export interface OverflowOptions {
  readonly inbox: Inbox;
  readonly spool: Spool;
  /** Whether no connection to the database works. */
  readonly isDatabaseAway: () => boolean;
}

/** Watches the inbox from `run` until its signal is aborted. */
export class Overflow {
  readonly #inbox: Inbox;
  readonly #spool: Spool;
  readonly #isDatabaseAway: () => boolean;
  readonly #progress: SpoolProgress;
  /** How many deliveries had come at each of the last looks, the oldest look first. */
  readonly #arrivals: number[] = [];
  #lookMs = -Infinity;
  #promptCount = 0;
  /** When a batch was last stored promptly, or less than too much waited. */
  #movingMs = -Infinity;
  #isSpooling = false;
  /** Since when the spool refuses to be written to, as far as was told. */
  #refusingSinceMs: number | undefined;
  #refusedMs = -Infinity;
  #acceptingSinceMs = -Infinity;
  #doubtMs = 0;
  #refusal: string | undefined;
  /** Messages that had left the spool when it began to refuse. */
  #removedBefore = 0;
  #retryMs = 0;

  constructor({ inbox, spool, isDatabaseAway }: OverflowOptions) {
    this.#inbox = inbox;
    this.#spool = spool;
    this.#isDatabaseAway = isDatabaseAway;
    this.#progress = new SpoolProgress(spool);
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.look();
      await sleep(this.#isSpooling ? GATHER_MS : LOOK_MS, signal);
    }
  }

  /** Why the spool takes no messages, without a full stop; undefined where it does. */
  get refusal(): string | undefined {
    return this.#refusal;
  }

  /** Moves what waits too long, or all that waits. */
  look(): void {
    const nowMs = performance.now();
    const { promptCount } = this.#inbox;
    if (promptCount > this.#promptCount) this.#isSpooling = false;
    if (promptCount > this.#promptCount || this.#inbox.length < MAX_WAITING) {
      this.#movingMs = nowMs;
    }
    this.#promptCount = promptCount;
    if (nowMs >= this.#lookMs + LOOK_MS) {
      this.#lookMs = nowMs;
      this.#copyOldBatches(nowMs);
      this.#spool.tidy();
      if (this.#spool.hasWaiting) this.#inbox.wake();
      const hasRoom = this.#spool.count === 0 && this.#spool.removedCount > this.#removedBefore;
      if (hasRoom) this.#accepts(nowMs, { isEmpty: true });
      this.#progress.look(nowMs);
      if (this.#hasOldDelivery()) this.#isSpooling = true;
    }
    if (this.#isDatabaseAway() || nowMs - this.#movingMs >= MAX_STALL_MS) this.#isSpooling = true;
    if (this.#isSpooling) this.#moveAll(nowMs);
  }

  #copyOldBatches(nowMs: number): void {
    for (const batch of this.#inbox.taken) {
      if (!batch.spooled && nowMs - batch.takenMs >= MAX_WAIT_MS) {
        this.#attempt(() => batch.copyTo(this.#spool), nowMs);
      }
    }
  }

  /** Whether something in memory had come already at a look that long ago. */
  #hasOldDelivery(): boolean {
    const { takenCount, length } = this.#inbox;
    this.#arrivals.push(takenCount + length);
    if (this.#arrivals.length <= MAX_WAIT_MS / LOOK_MS) return false;
    return takenCount < (this.#arrivals.shift() as number);
  }

  #moveAll(nowMs: number): void {
    while (this.#inbox.length > 0) {
      const deliveries = this.#inbox.peek(MAX_BATCH_ROWS);
      if (!this.#attempt(() => this.#spool.append(deliveries), nowMs)) return;
      this.#inbox.takeFromMemory(deliveries.length);
      for (const delivery of deliveries) delivery.settle();
    }
  }

  /** Writes to the spool, and tells when it begins and when it ceases to refuse. */
  #attempt(write: () => void, nowMs: number): boolean {
    if (nowMs < this.#retryMs) return false;
    try {
      write();
    } catch (error) {
      if (!(error instanceof SpoolError)) throw error;
      this.#retryMs = nowMs + RETRY_MS;
      this.#refusedMs = nowMs;
      this.#removedBefore = this.#spool.removedCount;
      this.#refusal = describeError(error);
      if (this.#refusingSinceMs === undefined) {
        this.#refusingSinceMs = nowMs;
        this.#doubtMs = nowMs - this.#acceptingSinceMs < DOUBT_MS ? DOUBT_MS : 0;
        log.error(
          `The spool takes no more messages: ${this.#refusal}. What comes in is left with ` +
            "the broker until it does.",
        );
      }
      return false;
    }
    this.#accepts(nowMs, { isEmpty: false });
    return true;
  }

  /** The spool takes messages; tells so, if it did not and there is no doubt. */
  #accepts(nowMs: number, { isEmpty }: { readonly isEmpty: boolean }): void {
    this.#refusal = undefined;
    if (this.#refusingSinceMs === undefined) return;
    if (!isEmpty && nowMs - this.#refusedMs < this.#doubtMs) return;
    const seconds = ((nowMs - this.#refusingSinceMs) / 1000).toFixed(1);
    this.#refusingSinceMs = undefined;
    this.#acceptingSinceMs = nowMs;
    log.info(`The spool takes messages again after ${seconds} s.`);
  }
}
