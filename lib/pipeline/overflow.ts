/**
 * The overflow: decides when messages go to the spool.
 *
 * While the database keeps up, nothing touches the disk. When the database is unavailable, when a message
 * has waited for a second, or when the in-flight window is about to fill, all waiting messages go
 * to the spool at once and are acknowledged, so that the broker need not queue them. This ends when the
 * database stores batches promptly again.
 */

import { sleep } from "../common/backoff.ts";
import { describeError } from "../common/error_text.ts";
import { log } from "../common/log.ts";
import { DEFAULT_TUNING, type Tuning } from "../config/tuning.ts";
import { RECEIVE_MAXIMUM } from "../message/delivery.ts";
import { SpoolError } from "../spool/errors.ts";
import { SpoolProgress } from "../spool/progress.ts";
import type { Spool } from "../spool/spool.ts";
import { MAX_BATCH_ROWS } from "./batch.ts";
import type { Inbox } from "./inbox.ts";

/** How long a delivery may wait in memory before it is spooled; checked every CHECK_INTERVAL_MS. */
const MAX_WAIT_MS = 1_000;

/** Deliveries that may wait in memory, half of the in-flight window, … */
const MAX_WAITING = RECEIVE_MAXIMUM / 2;

/** … while no batch has been stored promptly for this time. */
const MAX_STALL_MS = 500;

const CHECK_INTERVAL_MS = 50;

/** Time between two transactions while all messages go to the spool, so that some gather. */
const GATHER_MS = 5;

/** Time between two attempts to write to a spool that refuses. */
const RETRY_MS = 1_000;

/**
 * A slow database frees a little space of the spool at a time. If the spool refuses again within this
 * time, it counts as accepting only after as long without a refusal, or when it is empty.
 */
const DOUBT_MS = 60_000;

export interface OverflowOptions {
  readonly inbox: Inbox;
  readonly spool: Spool;
  /** Whether no connection to the database works. */
  readonly isDatabaseUnavailable: () => boolean;
  readonly tuning?: Pick<Tuning, "spoolQuietMs" | "spoolReportMs">;
}

/** Checks the inbox from `run` until its signal is aborted. */
export class Overflow {
  readonly #inbox: Inbox;
  readonly #spool: Spool;
  readonly #isDatabaseUnavailable: () => boolean;
  readonly #progress: SpoolProgress;
  /** How many deliveries had arrived at each of the last checks, the oldest check first. */
  readonly #arrivals: number[] = [];
  #checkedMs = -Infinity;
  #promptCount = 0;
  /** When a batch was last stored promptly, or fewer than MAX_WAITING deliveries waited. */
  #progressMs = -Infinity;
  #isSpooling = false;
  /** Since when the spool refuses to be written to, as far as was logged. */
  #refusingSinceMs: number | undefined;
  #refusedMs = -Infinity;
  #acceptingSinceMs = -Infinity;
  #doubtMs = 0;
  #refusal: string | undefined;
  /** Messages that had left the spool when it began to refuse. */
  #removedBefore = 0;
  #retryMs = 0;

  constructor({ inbox, spool, isDatabaseUnavailable, tuning = DEFAULT_TUNING }: OverflowOptions) {
    this.#inbox = inbox;
    this.#spool = spool;
    this.#isDatabaseUnavailable = isDatabaseUnavailable;
    this.#progress = new SpoolProgress(spool, tuning);
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.tick();
      await sleep(this.#isSpooling ? GATHER_MS : CHECK_INTERVAL_MS, signal);
    }
  }

  /** Why the spool accepts no messages, without a full stop; undefined if it accepts them. */
  get refusal(): string | undefined {
    return this.#refusal;
  }

  /** Moves the deliveries that have waited too long, or all of them, to the spool. */
  tick(): void {
    const nowMs = performance.now();
    const { promptCount } = this.#inbox;
    if (promptCount > this.#promptCount) this.#isSpooling = false;
    if (promptCount > this.#promptCount || this.#inbox.length < MAX_WAITING) {
      this.#progressMs = nowMs;
    }
    this.#promptCount = promptCount;
    if (nowMs >= this.#checkedMs + CHECK_INTERVAL_MS) {
      this.#checkedMs = nowMs;
      this.#copyOldBatches(nowMs);
      this.#spool.tidy();
      if (this.#spool.hasWaiting) this.#inbox.wake();
      const hasRoom = this.#spool.count === 0 && this.#spool.removedCount > this.#removedBefore;
      if (hasRoom) this.#accepts(nowMs, { isEmpty: true });
      this.#progress.tick(nowMs);
      if (this.#hasOldDelivery()) this.#isSpooling = true;
    }
    if (this.#isDatabaseUnavailable() || nowMs - this.#progressMs >= MAX_STALL_MS) {
      this.#isSpooling = true;
    }
    if (this.#isSpooling) this.#moveAll(nowMs);
  }

  #copyOldBatches(nowMs: number): void {
    for (const batch of this.#inbox.taken) {
      if (!batch.spooled && nowMs - batch.takenMs >= MAX_WAIT_MS) {
        this.#attempt(() => batch.copyTo(this.#spool), nowMs);
      }
    }
  }

  /** Whether a delivery in memory had arrived already at the check MAX_WAIT_MS ago. */
  #hasOldDelivery(): boolean {
    const { takenCount, length } = this.#inbox;
    this.#arrivals.push(takenCount + length);
    if (this.#arrivals.length <= MAX_WAIT_MS / CHECK_INTERVAL_MS) return false;
    return takenCount < (this.#arrivals.shift() as number);
  }

  #moveAll(nowMs: number): void {
    while (this.#inbox.length > 0) {
      const deliveries = this.#inbox.peek(MAX_BATCH_ROWS);
      if (!this.#attempt(() => this.#spool.append(deliveries), nowMs)) return;
      this.#inbox.takeFromMemory(deliveries.length);
      for (const delivery of deliveries) delivery.markSafe();
    }
  }

  /** Writes to the spool, and logs when it begins and when it ceases to refuse. */
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
          `The spool is not accepting messages: ${this.#refusal}. New messages stay with the ` +
            "broker until it does.",
        );
      }
      return false;
    }
    this.#accepts(nowMs, { isEmpty: false });
    return true;
  }

  /** The spool accepts messages; logs it, if it did not before and there is no doubt. */
  #accepts(nowMs: number, { isEmpty }: { readonly isEmpty: boolean }): void {
    this.#refusal = undefined;
    if (this.#refusingSinceMs === undefined) return;
    if (!isEmpty && nowMs - this.#refusedMs < this.#doubtMs) return;
    const seconds = ((nowMs - this.#refusingSinceMs) / 1000).toFixed(1);
    this.#refusingSinceMs = undefined;
    this.#acceptingSinceMs = nowMs;
    log.info(`The spool is accepting messages again after ${seconds} s.`);
  }
}
