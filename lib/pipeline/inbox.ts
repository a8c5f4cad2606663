/**
 * The inbox: messages that wait for a database connection, in memory and in the spool.
 *
 * Batches form by themselves: during an insert the next batch gathers, and a free connection takes
 * a single delivery at once. No timer adds latency.
 */

import { describeError } from "../common/error_text.ts";
import { Fifo } from "../common/fifo.ts";
import { log } from "../common/log.ts";
import { DEFAULT_TUNING, type Tuning } from "../config/tuning.ts";
import type { Delivery } from "../message/delivery.ts";
import { SpoolError } from "../spool/errors.ts";
import type { Spool } from "../spool/spool.ts";
import { Batch, MAX_BATCH_ROWS } from "./batch.ts";

/** Bytes of QoS 0 payloads in memory at most; their number is limited by `Tuning`. */
const MAX_QOS_0_BYTES = 64 * 2 ** 20;

/** A batch that is stored within this time proves that the database keeps up. */
const PROMPT_MS = 1_000;

/** Precision of the age of the oldest delivery. */
const MARK_INTERVAL_MS = 100;

/** A queue with waiting consumers. */
export class Inbox {
  readonly #spool: Spool | undefined;
  readonly #tuning: Pick<Tuning, "maxQos0Messages" | "postponedRetryMs">;
  readonly #deliveries = new Fifo<Delivery>();
  readonly #returned: Batch[] = [];
  /** Batches that wait for another attempt, and their timers. */
  readonly #postponed = new Map<Batch, ReturnType<typeof setTimeout>>();
  readonly #beingStored = new Set<Batch>();
  readonly #wakeUps = new Set<() => void>();
  /** How many deliveries had arrived before which time. */
  readonly #marks: { readonly count: number; readonly timeMs: number }[] = [];
  #qos0Messages = 0;
  #qos0Bytes = 0;
  #takenCount = 0;
  #promptCount = 0;
  #takesFromSpool = true;
  #closed = false;

  constructor(
    spool?: Spool,
    tuning: Pick<Tuning, "maxQos0Messages" | "postponedRetryMs"> = DEFAULT_TUNING,
  ) {
    this.#spool = spool;
    this.#tuning = tuning;
    if (spool !== undefined) spool.onRescued = () => this.#writeAgain(spool);
  }

  /** Deliveries in memory that no connection has taken. */
  get length(): number {
    return this.#deliveries.length;
  }

  /** Deliveries taken since the start. */
  get takenCount(): number {
    return this.#takenCount;
  }

  /** How long the oldest delivery in memory has waited, in ms; undefined if none waits. */
  get oldestWaitingMs(): number | undefined {
    const begins = this.taken.filter(({ spooled }) => !spooled).map(({ takenMs }) => takenMs);
    if (this.length > 0) begins.push(this.#marks[0]?.timeMs ?? performance.now());
    return begins.length === 0 ? undefined : performance.now() - Math.min(...begins);
  }

  /** Batches that were stored promptly since the start. */
  get promptCount(): number {
    return this.#promptCount;
  }

  /** Batches that connections are storing. */
  get beingStored(): readonly Batch[] {
    return [...this.#beingStored];
  }

  /** Batches that were taken and have no outcome: being stored, given back or postponed. */
  get taken(): readonly Batch[] {
    return [...this.#postponed.keys(), ...this.#returned, ...this.#beingStored];
  }

  /** Deliveries that are postponed. */
  get postponedCount(): number {
    return [...this.#postponed.keys()].reduce((sum, batch) => sum + batch.unfinished.length, 0);
  }

  /** Deliveries that are in memory only. */
  get inMemory(): number {
    return this.taken.filter(({ spooled }) => !spooled).reduce(
      (sum, { unfinished }) => sum + unfinished.length,
      this.length,
    );
  }

  /**
   * Appends a delivery and returns whether it was accepted. QoS 1 and 2 always are, since the
   * in-flight window bounds them; QoS 0 is not when 100,000 of them, or 64 MiB, wait already.
   */
  push(delivery: Delivery): boolean {
    if (delivery.qos === 0) {
      const bytes = this.#qos0Bytes + delivery.payload.length;
      const isFull = this.#qos0Messages >= this.#tuning.maxQos0Messages ||
        bytes > MAX_QOS_0_BYTES;
      if (isFull) return false;
      this.#qos0Messages++;
      this.#qos0Bytes = bytes;
    }
    this.#mark();
    this.#deliveries.push(delivery);
    this.wake();
    return true;
  }

  /**
   * Waits for a batch: first one that was given back, else in turn from memory and from the spool.
   * The consumer passes it to `finish`, `giveBack` or `postpone`. Resolves to undefined when
   * `signal` is aborted, and when the inbox is closed and nothing is left in memory.
   */
  async take(signal: AbortSignal): Promise<Batch | undefined> {
    while (!signal.aborted) {
      const batch = this.#next();
      if (batch !== undefined) {
        this.#beingStored.add(batch);
        return batch;
      }
      if (this.#closed) return undefined;
      await this.#arrival(signal);
    }
    // The arrival that woke this consumer is for another one now.
    this.wake();
    return undefined;
  }

  /** Every delivery of the batch has its outcome; `isStored` says whether the database gave it. */
  finish(batch: Batch, { isStored = true } = {}): void {
    this.#beingStored.delete(batch);
    if (isStored && performance.now() - batch.takenMs < PROMPT_MS) this.#promptCount++;
    this.#spool?.remove(batch.releaseDone());
  }

  /**
   * The batch could not be stored, or not all of it: it is taken next, in two halves if storing it
   * took too long.
   */
  giveBack(batch: Batch, { tookTooLong = false } = {}): void {
    this.#beingStored.delete(batch);
    this.#spool?.remove(batch.releaseDone());
    this.#returned.push(...(tookTooLong ? batch.halve() : [batch]));
    this.wake();
  }

  /** The unfinished deliveries of the batch are tried again later; the others need not wait. */
  postpone(batch: Batch): void {
    this.#beingStored.delete(batch);
    this.#spool?.remove(batch.releaseDone());
    const timer = setTimeout(() => {
      this.#postponed.delete(batch);
      this.#returned.push(batch);
      this.wake();
    }, this.#tuning.postponedRetryMs);
    this.#postponed.set(batch, timer);
  }

  /** The deliveries that `takeFromMemory` would take. */
  peek(max: number): Delivery[] {
    return this.#deliveries.peek(max);
  }

  /** Takes up to `max` deliveries from memory, oldest first; none if none waits. */
  takeFromMemory(max: number): Delivery[] {
    const taken = this.#deliveries.take(max);
    for (const { qos, payload } of taken) {
      if (qos > 0) continue;
      this.#qos0Messages--;
      this.#qos0Bytes -= payload.length;
    }
    this.#takenCount += taken.length;
    // The first mark stays the last one before the oldest delivery arrived.
    const first = this.#marks.findLastIndex(({ count }) => count <= this.#takenCount);
    if (first > 0) this.#marks.splice(0, first);
    return taken;
  }

  /** Lets one waiting consumer check for a batch. */
  wake(): void {
    const [first] = this.#wakeUps;
    first?.();
  }

  /** Declares that no more deliveries arrive. From now on the spool is not read. */
  close(): void {
    this.#closed = true;
    this.#postponed.forEach(clearTimeout);
    for (const wakeUp of this.#wakeUps) wakeUp();
  }

  /** After the end: deletes the rows of the spool that are no longer needed. */
  dispose(): void {
    this.#spool?.deleteObsolete();
  }

  /** Batches from the spool are acknowledged, and their rows may be lost with a damaged file. */
  #writeAgain(spool: Spool): void {
    for (const batch of this.taken) if (batch.spooled) batch.copyTo(spool);
  }

  #mark(): void {
    const timeMs = performance.now();
    if (timeMs - (this.#marks.at(-1)?.timeMs ?? -Infinity) < MARK_INTERVAL_MS) return;
    if (this.length === 0) this.#marks.length = 0;
    this.#marks.push({ count: this.#takenCount + this.length, timeMs });
  }

  #next(): Batch | undefined {
    const returned = this.#returned.findIndex(({ spooled }) => !(spooled && this.#closed));
    if (returned >= 0) return this.#returned.splice(returned, 1)[0];
    this.#takesFromSpool = !this.#takesFromSpool;
    return this.#takesFromSpool
      ? this.#nextFromSpool() ?? this.#nextFromMemory()
      : this.#nextFromMemory() ?? this.#nextFromSpool();
  }

  #nextFromMemory(): Batch | undefined {
    return this.length === 0 ? undefined : new Batch(this.takeFromMemory(MAX_BATCH_ROWS));
  }

  #nextFromSpool(): Batch | undefined {
    if (this.#closed || !this.#spool?.hasWaiting) return undefined;
    try {
      const spooled = this.#spool.take(MAX_BATCH_ROWS);
      return spooled && new Batch(spooled.deliveries, spooled.ids);
    } catch (error) {
      if (!(error instanceof SpoolError)) throw error;
      log.debug(`Cannot read the spool: ${describeError(error)}.`);
      return undefined;
    }
  }

  #arrival(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wakeUp = (): void => {
        this.#wakeUps.delete(wakeUp);
        signal.removeEventListener("abort", wakeUp);
        resolve();
      };
      this.#wakeUps.add(wakeUp);
      signal.addEventListener("abort", wakeUp);
    });
  }
}
