/**
 * The spool: messages that wait on disk for the database.
 *
 * A message is in it from the commit of `append` to the deletion that follows the commit of the
 * database. Whatever ends the program in between, the message is found at the next start; at
 * worst it is then sent to the database a second time, where the unique key absorbs it.
 */

import { Buffer } from "node:buffer";
import { describeError } from "../common/error_text.ts";
import { Delivery } from "../message/delivery.ts";
import { log } from "../common/log.ts";
import { SpoolError } from "./errors.ts";
import type { SpoolFile } from "./file.ts";

/** Rows that are not needed any more are deleted when there are so many of them, … */
const MAX_OBSOLETE_ROWS = 20_000;

/** … and otherwise after this time. Those that a crash keeps from it are duplicates afterwards. */
const MAX_OBSOLETE_MS = 1_000;

/** Rows deleted at a time where the disk is full, see `SpoolFile`. */
const FULL_DISK_ROWS = 500;

/** Bytes of payloads that are taken together, unless it is a single message. */
const MAX_TAKEN_BYTES = 8 * 2 ** 20;

/**
 * The part of the spool that messages may fill. The rest is for the records of those that are
 * rejected when they are taken out again: see `RejectedMessages`.
 */
const MAX_SHARE = 11 / 12;

/** Bytes of a message on disk beside topic and payload. */
const ROW_BYTES = 30;

/** Messages that were taken from the spool, and which rows they are, in the same order. */
export interface Spooled {
  readonly deliveries: readonly Delivery[];
  readonly ids: readonly number[];
}

/** Ids from `first` to `last`, of which some may not exist. */
interface IdRange {
  first: number;
  readonly last: number;
}

/** The messages of an open spool. */
export class Spool {
  readonly #file: SpoolFile;
  /** Those that nobody has taken, in the order of their ids. */
  readonly #waiting: IdRange[] = [];
  /** Rows that are not needed any more and could not be deleted yet. */
  readonly #obsolete: IdRange[] = [];
  #obsoleteCount = 0;
  #deletedMs = -Infinity;
  #nextId = 1;
  #waitingCount = 0;
  #takenCount = 0;
  #unreadable = 0;
  /** Whether there is space to be given back to the file system. */
  #shrinks = false;
  #removedCount = 0;
  #onRescued: () => void = () => {};

  /** `file` stays the caller's own. */
  constructor(file: SpoolFile) {
    this.#file = file;
    const [row] = file.all("SELECT min(id) AS first, max(id) AS last FROM message");
    const range = { first: Number(row?.["first"] ?? 1), last: Number(row?.["last"] ?? 0) };
    this.#nextId = range.last + 1;
    this.#waitingCount = this.#countRows(range);
    if (this.#waitingCount > 0) this.#waiting.push(range);
    file.onRescued = () => this.#recount();
  }

  /** Called when a damaged file has been replaced: what was taken may not be on disk any more. */
  set onRescued(callback: () => void) {
    this.#onRescued = callback;
  }

  /** Messages in the spool, those that a worker is just storing among them. */
  get count(): number {
    return this.#waitingCount + this.#takenCount;
  }

  /** Messages that have left the spool since the beginning. */
  get removedCount(): number {
    return this.#removedCount;
  }

  /** Messages that were in the spool when it was damaged, and could not be read any more. */
  get unreadable(): number {
    return this.#unreadable;
  }

  /** Bytes that the messages take on the disk, with what else is kept in the file. */
  get usedBytes(): number {
    return this.#file.usedBytes;
  }

  /** How long the oldest message has been in the spool, in ms; undefined where there is none. */
  get oldestAgeMs(): number | undefined {
    if (this.count === 0) return undefined;
    try {
      const [row] = this.#file.all("SELECT time_ms FROM message ORDER BY id LIMIT 1");
      return row && Date.now() - Number(row["time_ms"]);
    } catch (error) {
      if (!(error instanceof SpoolError)) throw error;
      return undefined; // Only told of; what has to be read is tried again.
    }
  }

  /** Whether there is something to take. */
  get hasWaiting(): boolean {
    return this.#waitingCount > 0;
  }

  /**
   * Writes messages; when this returns, they are safe. They wait to be taken, unless `taken` says
   * that the caller has them in hand already. Returns their ids.
   *
   * @throws {SpoolError} when none of them was written, because disk or spool are full, say.
   */
  append(deliveries: readonly Delivery[], options: { readonly taken?: boolean } = {}): number[] {
    try {
      return this.#append(deliveries, options);
    } catch (error) {
      if (this.#obsoleteCount === 0) throw error;
      this.deleteObsolete();
      return this.#append(deliveries, options);
    }
  }

  #append(deliveries: readonly Delivery[], { taken = false }): number[] {
    const bytes = deliveries.reduce(
      (sum, { topic, payload }) => sum + topic.length + payload.length + ROW_BYTES,
      0,
    );
    if (this.usedBytes + bytes > MAX_SHARE * this.#file.maxBytes) {
      throw new SpoolError("it has reached the size that SPOOL_MAX_BYTES allows");
    }
    const first = this.#nextId;
    const nowMs = Date.now();
    this.#file.transaction(() => {
      for (const [index, { topic, payload }] of deliveries.entries()) {
        this.#file.run(
          "INSERT INTO message (id, time_ms, topic, payload) VALUES (?, ?, ?, ?)",
          first + index,
          nowMs,
          topic,
          payload,
        );
      }
    });
    this.#nextId += deliveries.length;
    if (taken) {
      this.#takenCount += deliveries.length;
    } else {
      this.#waitingCount += deliveries.length;
      addRange(this.#waiting, { first, last: this.#nextId - 1 });
    }
    return deliveries.map((_, index) => first + index);
  }

  /**
   * Takes up to `max` messages, oldest first, and fewer where they are long; undefined where none
   * waits. They stay on disk until they are removed.
   *
   * @throws {SpoolError} when they cannot be read at the moment.
   */
  take(max: number): Spooled | undefined {
    for (let range; (range = this.#waiting[0]) !== undefined;) {
      const last = this.#lastOf(range, max);
      const rows = this.#file.all(
        "SELECT id, topic, payload FROM message WHERE id BETWEEN ? AND ? ORDER BY id",
        range.first,
        last,
      ) as unknown as MessageRow[];
      range.first = last + 1;
      if (range.first > range.last) this.#waiting.shift();
      if (rows.length === 0) continue;
      this.#waitingCount -= rows.length;
      this.#takenCount += rows.length;
      return { deliveries: rows.map(toDelivery), ids: rows.map(({ id }) => id) };
    }
    return undefined;
  }

  /** The id of the last message that is taken together with the first one of a range. */
  #lastOf(range: IdRange, max: number): number {
    const [row] = this.#file.all(
      `SELECT max(id) AS last FROM (
         SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS bytes_before
         FROM (SELECT id, length(payload) AS bytes FROM message
               WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?)
       ) WHERE bytes_before < ?`,
      range.first,
      range.last,
      max,
      MAX_TAKEN_BYTES,
    );
    return Number(row?.["last"] ?? range.last);
  }

  /** Forgets messages that were taken and have their outcome now. */
  remove(ids: readonly number[]): void {
    this.#takenCount -= ids.length;
    this.#removedCount += ids.length;
    this.#obsoleteCount += ids.length;
    for (const id of ids) addRange(this.#obsolete, { first: id, last: id });
    this.tidy();
  }

  /** Deletes what is not needed any more, many rows at a time. To be called now and then. */
  tidy(): void {
    const isDue = this.count === 0 || this.#obsoleteCount >= MAX_OBSOLETE_ROWS ||
      performance.now() - this.#deletedMs >= MAX_OBSOLETE_MS;
    if ((isDue && this.#obsoleteCount > 0) || this.#shrinks) this.deleteObsolete();
  }

  /** As `tidy`, at once. Where the disk refuses, it is tried again at the next opportunity. */
  deleteObsolete(): void {
    this.#deletedMs = performance.now();
    try {
      for (let range; (range = this.#obsolete[0]) !== undefined; this.#obsolete.shift()) {
        this.#delete(range);
      }
      this.#obsoleteCount = 0;
      this.#shrinks = this.count === 0 && this.#file.shrink();
    } catch (error) {
      if (!(error instanceof SpoolError)) throw error;
      log.debug(`Cannot delete stored messages from the spool: ${describeError(error)}.`);
    }
  }

  #delete({ first, last }: IdRange): void {
    const sql = "DELETE FROM message WHERE id BETWEEN ? AND ?";
    try {
      this.#file.run(sql, first, last);
    } catch (error) {
      if (!(error instanceof SpoolError)) throw error;
      // Where the disk is full, there is room in the journal for so many at a time.
      for (let from = first; from <= last; from += FULL_DISK_ROWS) {
        this.#file.run(sql, from, Math.min(last, from + FULL_DISK_ROWS - 1));
      }
    }
  }

  #countRows({ first, last }: IdRange): number {
    const sql = "SELECT count(*) AS count FROM message WHERE id BETWEEN ? AND ?";
    return Number(this.#file.all(sql, first, last)[0]?.["count"]);
  }

  /** After a rescue: what is not there any more is lost to the spool, unless it is in hand. */
  #recount(): void {
    // An id of a damaged row may be any.
    const [row] = this.#file.all("SELECT max(id) AS last FROM message");
    const last = Number(row?.["last"] ?? 0);
    if (last >= this.#nextId) {
      addRange(this.#waiting, { first: this.#nextId, last });
      this.#nextId = last + 1;
    }
    const count = this.#waiting.reduce((sum, range) => sum + this.#countRows(range), 0);
    const missing = this.#waitingCount - count;
    this.#waitingCount = count;
    this.#unreadable += missing;
    if (missing > 0) {
      log.error(`${missing} spooled messages could not be read from the damaged file.`);
    }
    this.#onRescued();
  }
}

interface MessageRow {
  readonly id: number;
  readonly topic: string;
  readonly payload: Uint8Array;
}

/** Nobody waits for its acknowledgement. */
function toDelivery({ topic, payload }: MessageRow): Delivery {
  const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
  return new Delivery(topic, bytes, { qos: 0 });
}

/** Adds a range behind the others. */
function addRange(ranges: IdRange[], { first, last }: IdRange): void {
  const previous = ranges.at(-1);
  if (previous?.last === first - 1) ranges[ranges.length - 1] = { first: previous.first, last };
  else ranges.push({ first, last });
}
