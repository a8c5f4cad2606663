/**
 * The inbox: what waits for a database connection, in memory and, beyond that, in the spool.
 *
 * Batches form by themselves here: while an insert is under way the next batch gathers, and a
 * connection that is free takes a single delivery at once. No timer is involved.
 */

import type { Delivery } from "../message/delivery.ts";
import { Fifo } from "../common/fifo.ts";
import { log } from "../common/log.ts";
import { describeError } from "../common/retry.ts";
import type { Spool } from "../spool/spool.ts";
import { SpoolError } from "../spool/file.ts";

/** Rows of one insert at most. Larger batches are not faster and hold more in hand. */
export const MAX_BATCH_ROWS = 2_000;

/**
 * Deliveries of QoS 0 kept in memory at most, and bytes of their payloads: nothing bounds those at
 * the broker's side.
 */
const MAX_UNACKNOWLEDGED = 100_000;
const MAX_UNACKNOWLEDGED_BYTES = 64 * 2 ** 20;

/** Time after which what the database would not store is tried again. */
const POSTPONED_MS = 10_000;

/** A batch that is stored within this time shows that the database takes what comes. */
const PROMPT_MS = 1_000;

/** Deliveries taken together. They stay together until each of them has its outcome. */
export class Batch {
  readonly takenMs: number = performance.now();
  #deliveries: readonly Delivery[];
  #ids: readonly number[] | undefined;

  /** `ids` are the rows of the spool that the deliveries were read from. */
  constructor(deliveries: readonly Delivery[], ids?: readonly number[]) {
    this.#deliveries = deliveries;
    this.#ids = ids;
  }

  /** Those that have no outcome yet. */
  get unfinished(): readonly Delivery[] {
    return this.#deliveries.filter(({ finished }) => !finished);
  }

  /** Whether all of it is in the spool, too. */
  get spooled(): boolean {
    return this.#ids !== undefined;
  }

  /** Two batches with half of it each, or the batch itself where it is a single delivery. */
  halve(): Batch[] {
    if (this.#deliveries.length < 2) return [this];
    const middle = Math.ceil(this.#deliveries.length / 2);
    return [[0, middle], [middle]].map((bounds) =>
      new Batch(this.#deliveries.slice(...bounds), this.#ids?.slice(...bounds))
    );
  }

  /** Lets go of what has its outcome; returns the rows of the spool that are not needed any more. */
  releaseFinished(): number[] {
    const ids = this.#ids?.filter((_, index) => this.#deliveries[index]?.finished) ?? [];
    this.#ids = this.#ids?.filter((_, index) => !this.#deliveries[index]?.finished);
    this.#deliveries = this.unfinished;
    return ids;
  }

  /**
   * Writes what is unfinished to the spool, and settles it. What was there already is written anew.
   * Throws what the spool throws.
   */
  copyTo(spool: Spool): void {
    spool.remove(this.releaseFinished());
    const before = this.#ids;
    this.#ids = spool.append(this.#deliveries, { taken: true });
    if (before !== undefined) spool.remove(before);
    for (const delivery of this.#deliveries) delivery.settle();
  }
}

/** A queue with waiting consumers. */
export class Inbox {
  readonly #spool: Spool | undefined;
  readonly #deliveries = new Fifo<Delivery>();
  readonly #returned: Batch[] = [];
  readonly #postponed: { readonly batch: Batch; readonly dueMs: number }[] = [];
  readonly #underWay = new Set<Batch>();
  readonly #wakeUps = new Set<() => void>();
  /** How many deliveries had come at which time. */
  readonly #marks: { readonly count: number; readonly timeMs: number }[] = [];
  #unacknowledged = 0;
  #unacknowledgedBytes = 0;
  #takenCount = 0;
  #promptCount = 0;
  #takesFromSpool = true;
  #closed = false;

  constructor(spool?: Spool) {
    this.#spool = spool;
    if (spool !== undefined) spool.onRescued = () => this.#writeAgain(spool);
  }

  /** Deliveries in memory that nobody has taken yet. */
  get length(): number {
    return this.#deliveries.length;
  }

  /** Deliveries that have been taken since the beginning. */
  get takenCount(): number {
    return this.#takenCount;
  }

  /**
   * How long the oldest delivery in memory has waited, in ms, to the precision of the calls of
   * `mark`; undefined where there is none.
   */
  get oldestWaitingMs(): number | undefined {
    const begins = this.taken.filter(({ spooled }) => !spooled).map(({ takenMs }) => takenMs);
    if (this.length > 0) begins.push(this.#marks[0]?.timeMs ?? performance.now());
    return begins.length === 0 ? undefined : performance.now() - Math.min(...begins);
  }

  /** Batches that were stored promptly since the beginning. */
  get promptCount(): number {
    return this.#promptCount;
  }

  /** Batches that consumers have in hand. */
  get underWay(): readonly Batch[] {
    return [...this.#underWay];
  }

  /** Batches that were taken and have not got their outcome, whoever has them. */
  get taken(): readonly Batch[] {
    return [...this.#postponed.map(({ batch }) => batch), ...this.#returned, ...this.underWay];
  }

  /** Deliveries that are postponed. */
  get postponedCount(): number {
    return this.#postponed.reduce((sum, { batch }) => sum + batch.unfinished.length, 0);
  }

  /** Deliveries that are in memory only. */
  get inMemory(): number {
    return this.taken.filter(({ spooled }) => !spooled).reduce(
      (sum, { unfinished }) => sum + unfinished.length,
      this.length,
    );
  }

  /**
   * Appends a delivery and returns whether it was taken in. QoS 1 and 2 always are, since the
   * in-flight window bounds them; QoS 0 is not when 100,000 of its kind, or 64 MiB, wait already.
   */
  push(delivery: Delivery): boolean {
    if (delivery.qos === 0) {
      const bytes = this.#unacknowledgedBytes + delivery.payload.length;
      if (this.#unacknowledged >= MAX_UNACKNOWLEDGED || bytes > MAX_UNACKNOWLEDGED_BYTES) {
        return false;
      }
      this.#unacknowledged++;
      this.#unacknowledgedBytes = bytes;
    }
    this.#deliveries.push(delivery);
    this.wake();
    return true;
  }

  /**
   * Waits for a batch: what another consumer gave back, else in turn what is in memory and what is
   * in the spool. The consumer hands it to `finish` or `giveBack`. Resolves to undefined when
   * `signal` is aborted, and when the inbox is closed and nothing is left in memory.
   */
  async take(signal: AbortSignal): Promise<Batch | undefined> {
    while (!signal.aborted) {
      const batch = this.#next();
      if (batch !== undefined) {
        this.#underWay.add(batch);
        return batch;
      }
      if (this.#closed) return undefined;
      await this.#arrival(signal);
    }
    // What woke this consumer up is another's now.
    this.wake();
    return undefined;
  }

  /** Everything in the batch has its outcome; `isStored` where that was the database's. */
  finish(batch: Batch, { isStored = true } = {}): void {
    this.#underWay.delete(batch);
    if (isStored && performance.now() - batch.takenMs < PROMPT_MS) this.#promptCount++;
    this.#spool?.remove(batch.releaseFinished());
  }

  /**
   * The batch could not be stored, or not all of it: it is the next to be taken; in two halves where
   * its storing took too long.
   */
  giveBack(batch: Batch, { tookTooLong = false } = {}): void {
    this.#underWay.delete(batch);
    this.#spool?.remove(batch.releaseFinished());
    this.#returned.push(...(tookTooLong ? batch.halve() : [batch]));
    this.wake();
  }

  /** What is unfinished in the batch is to be taken again a little later, and keeps nobody waiting. */
  postpone(batch: Batch): void {
    this.#underWay.delete(batch);
    this.#spool?.remove(batch.releaseFinished());
    this.#postponed.push({ batch, dueMs: performance.now() + POSTPONED_MS });
  }

  /** What `takeFromMemory` would take. */
  peek(max: number): Delivery[] {
    return this.#deliveries.peek(max);
  }

  /** Takes up to `max` deliveries from the memory, oldest first; none where there is none. */
  takeFromMemory(max: number): Delivery[] {
    const taken = this.#deliveries.take(max);
    for (const { qos, payload } of taken) {
      if (qos > 0) continue;
      this.#unacknowledged--;
      this.#unacknowledgedBytes -= payload.length;
    }
    this.#takenCount += taken.length;
    return taken;
  }

  /** Notes what has come until now, and what is due again. To be called every second or so. */
  mark(): void {
    const nowMs = performance.now();
    const count = this.#takenCount + this.length;
    if (this.#marks.at(-1)?.count !== count) this.#marks.push({ count, timeMs: nowMs });
    // The first one stays the last before the oldest delivery came.
    const first = this.#marks.findLastIndex((mark) => mark.count <= this.#takenCount);
    if (first > 0) this.#marks.splice(0, first);
    while ((this.#postponed[0]?.dueMs ?? Infinity) <= nowMs) {
      this.#returned.push((this.#postponed.shift() as { batch: Batch }).batch);
      this.wake();
    }
  }

  /** Lets a consumer look whether there is something to take. */
  wake(): void {
    const [first] = this.#wakeUps;
    first?.();
  }

  /** Declares that nothing more comes in. From now on the spool is left as it is. */
  close(): void {
    this.#closed = true;
    for (const wakeUp of this.#wakeUps) wakeUp();
  }

  /** After the end: deletes from the spool what has its outcome and waited to be deleted. */
  dispose(): void {
    this.#spool?.deleteObsolete();
  }

  /** What is in hand has been acknowledged, and its rows may be lost with the damaged file. */
  #writeAgain(spool: Spool): void {
    for (const batch of this.taken) if (batch.spooled) batch.copyTo(spool);
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
