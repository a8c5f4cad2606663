/**
 * The spool: messages that wait on disk for the database.
 *
 * A message is in the spool from the commit of `append` until it is deleted, after the database has
 * committed its reading. If the process ends in between, the next start finds the message. It may
 * be sent to the database a second time; the unique key makes that harmless.
 */

import { Buffer } from "node:buffer";
import { describeError } from "../common/error_text.ts";
import { Delivery } from "../message/delivery.ts";
import { log } from "../common/log.ts";
import { formatCount } from "../common/text.ts";
import { SpoolError } from "./errors.ts";
import type { SpoolFile } from "./file.ts";

/** Number of obsolete rows from which on they are deleted at once. */
const MAX_OBSOLETE_ROWS = 20_000;

/**
 * Time after which obsolete rows are deleted in any case. A crash leaves up to as many behind: they
 * are sent to the database again, as duplicates, or rejected and recorded again.
 */
const MAX_OBSOLETE_MS = 1_000;

/** Rows per deletion on a full disk: as many as fit into the reserved journal, see `RESERVE`. */
const FULL_DISK_ROWS = 500;

/** Maximum bytes of payloads per `take`; a single larger message is taken alone. */
const MAX_TAKEN_BYTES = 8 * 2 ** 20;

/**
 * The share of the spool that waiting messages may fill. The rest is for messages that are rejected
 * when they leave the spool, see `RejectedMessages`.
 */
const MAX_SHARE = 11 / 12;

/** Bytes of a row in addition to topic and payload. */
const ROW_BYTES = 30;

/** Messages taken from the spool, and the ids of their rows in the same order. */
export interface Spooled {
  readonly deliveries: readonly Delivery[];
  readonly ids: readonly number[];
}

/** The ids from `first` to `last`, both included. Some of them may not exist. */
interface IdRange {
  first: number;
  readonly last: number;
}

/** The messages in an open spool file. */
export class Spool {
  readonly #file: SpoolFile;
  /** Messages that were not taken, in the order of their ids. */
  readonly #waiting: IdRange[] = [];
  /** Rows of removed messages that are not deleted yet. */
  readonly #obsolete: IdRange[] = [];
  #obsoleteCount = 0;
  #deletedMs = -Infinity;
  #nextId = 1;
  #waitingCount = 0;
  #takenCount = 0;
  #unreadable = 0;
  /** Whether the file has free pages to return to the file system. */
  #shrinks = false;
  #removedCount = 0;
  #onRescued: () => void = () => {};

  /**
   * Counts the messages of the file. The caller keeps ownership of `file` and closes it.
   *
   * @throws {SpoolError} when the file cannot be read.
   */
  constructor(file: SpoolFile) {
    this.#file = file;
    const [row] = file.all("SELECT min(id) AS first, max(id) AS last FROM message");
    const range = { first: Number(row?.["first"] ?? 1), last: Number(row?.["last"] ?? 0) };
    this.#nextId = range.last + 1;
    this.#waitingCount = this.#countRows(range);
    if (this.#waitingCount > 0) this.#waiting.push(range);
    file.onRescued = () => this.#recount();
  }

  /** Called after a damaged file was replaced: taken messages may be missing on disk. */
  set onRescued(callback: () => void) {
    this.#onRescued = callback;
  }

  /** Messages in the spool, including taken ones. */
  get count(): number {
    return this.#waitingCount + this.#takenCount;
  }

  /** Messages removed from the spool since it was opened. */
  get removedCount(): number {
    return this.#removedCount;
  }

  /** Messages that could not be read from a damaged file, since the spool was opened. */
  get unreadable(): number {
    return this.#unreadable;
  }

  /** Bytes in use in the file, including its other tables. Throws a `SpoolError` if unreadable. */
  get usedBytes(): number {
    return this.#file.usedBytes;
  }

  /** Age of the oldest message in ms; undefined if the spool is empty or cannot be read. */
  get oldestAgeMs(): number | undefined {
    if (this.count === 0) return undefined;
    try {
      const [row] = this.#file.all("SELECT time_ms FROM message ORDER BY id LIMIT 1");
      return row && Date.now() - Number(row["time_ms"]);
    } catch (error) {
      if (!(error instanceof SpoolError)) throw error;
      return undefined; // The age is only reported; reading the messages reports the error.
    }
  }

  /** Whether there are messages to take. */
  get hasWaiting(): boolean {
    return this.#waitingCount > 0;
  }

  /**
   * Writes messages. When this returns, they are on disk. They wait to be taken, unless `taken`
   * marks them as taken by the caller already. Returns their ids.
   *
   * @throws {SpoolError} when none of them was written, for example because disk or spool are full.
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
   * Takes up to `max` messages, oldest first, and fewer if they are large. Returns undefined if
   * none waits. They stay on disk until they are removed.
   *
   * @throws {SpoolError} when they cannot be read at the moment; they keep waiting.
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

  /** The last id of the range that is taken together with its first one. */
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

  /** Removes messages that were taken and have their outcome. Their rows are deleted later. */
  remove(ids: readonly number[]): void {
    this.#takenCount -= ids.length;
    this.#removedCount += ids.length;
    this.#obsoleteCount += ids.length;
    for (const id of ids) addRange(this.#obsolete, { first: id, last: id });
    this.tidy();
  }

  /** Deletes obsolete rows when that is due. Call it a few times a second. */
  tidy(): void {
    const isDue = this.count === 0 || this.#obsoleteCount >= MAX_OBSOLETE_ROWS ||
      performance.now() - this.#deletedMs >= MAX_OBSOLETE_MS;
    if ((isDue && this.#obsoleteCount > 0) || this.#shrinks) this.deleteObsolete();
  }

  /** Deletes obsolete rows now. If that fails, they stay obsolete until the next call. */
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
      // On a full disk, the reserved journal has space for only this many rows at a time.
      for (let from = first; from <= last; from += FULL_DISK_ROWS) {
        this.#file.run(sql, from, Math.min(last, from + FULL_DISK_ROWS - 1));
      }
    }
  }

  #countRows({ first, last }: IdRange): number {
    const sql = "SELECT count(*) AS count FROM message WHERE id BETWEEN ? AND ?";
    return Number(this.#file.all(sql, first, last)[0]?.["count"]);
  }

  /** Counts again after a rescue. Missing messages are lost, unless they are taken (in memory). */
  #recount(): void {
    // A damaged row may have been recovered with any id, also with one that was not assigned yet.
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
      log.error(`Could not read ${formatCount(missing, "spooled message")} from the damaged file.`);
    }
    this.#onRescued();
  }
}

/** A row of the table `message`. */
interface MessageRow {
  readonly id: number;
  readonly topic: string;
  readonly payload: Uint8Array;
}

/** QoS 0: the message was acknowledged when it was spooled. */
function toDelivery({ topic, payload }: MessageRow): Delivery {
  const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
  return new Delivery(topic, bytes, { qos: 0 });
}

/** Appends a range, and merges it with the last one if they are adjacent. */
function addRange(ranges: IdRange[], { first, last }: IdRange): void {
  const previous = ranges.at(-1);
  if (previous?.last === first - 1) ranges[ranges.length - 1] = { first: previous.first, last };
  else ranges.push({ first, last });
}
