/** The record of rejected messages, kept in the spool's file for somebody to look at and send again. */

import { Buffer } from "node:buffer";
import { MAX_PAYLOAD_BYTES } from "../message/reading.ts";
import type { SpoolFile } from "./file.ts";

/** Messages kept at most, and for how long. */
const MAX_MESSAGES = 100_000;
const MAX_AGE_MS = 30 * 24 * 3600 * 1000;

/** The part of the spool that they may take, half of what the messages that wait leave. */
const MAX_SHARE = 1 / 20;

/** Bytes of a message beside topic, reason and payload. */
const ROW_BYTES = 30;

/** Those that are too many are deleted after so many bytes … */
const PRUNE_AFTER_BYTES = 8 * 2 ** 20;

/** … and those that are too old after this time. */
const PRUNE_AFTER_MS = 3600 * 1000;

/** A message that was not stored, and why. */
export interface Rejection {
  readonly topic: string;
  /** Without a full stop. */
  readonly reason: string;
  /** The message's; of one that is too long for a reading, its beginning. */
  readonly payload: Buffer;
}

/** A message of the record. */
export interface RejectedMessage extends Rejection {
  readonly id: number;
  /** When it was rejected, in ms since 1970-01-01 00:00 UTC. */
  readonly timeMs: number;
}

/** What to select from the record. */
export interface Selection {
  /** Those that come behind it in the record. */
  readonly afterId?: number;
  /** Those that were rejected at this time or later, in ms since 1970. */
  readonly sinceMs?: number;
  readonly limit: number;
}

/** The record in an open spool. */
export class RejectedMessages {
  readonly #file: SpoolFile;
  readonly #maxBytes: number;
  #unprunedBytes = 0;
  #prunedMs = -Infinity;
  /** Up to this one, messages were too old when that was last looked at. */
  #lastAgedId = 0;

  /** `file` stays the caller's own. */
  constructor(file: SpoolFile) {
    this.#file = file;
    this.#maxBytes = file.maxBytes * MAX_SHARE;
  }

  /**
   * Adds messages; when this returns, they are on disk.
   *
   * @throws {SpoolError} when not all of them were written.
   */
  add(rejections: readonly Rejection[]): void {
    const nowMs = Date.now();
    for (const part of split(rejections, this.#maxBytes / 8)) {
      this.#file.transaction(() => {
        for (const { topic, reason, payload } of part) {
          this.#file.run(
            "INSERT INTO rejected (time_ms, topic, reason, payload) VALUES (?, ?, ?, ?)",
            nowMs,
            topic,
            reason,
            keptOf(payload),
          );
        }
      });
      this.#unprunedBytes += part.reduce((sum, rejection) => sum + sizeOf(rejection), 0);
      this.prune();
    }
  }

  /**
   * Deletes the oldest ones where there are too many, or they are too old. Looks only now and then.
   *
   * @throws {SpoolError}
   */
  prune(): void {
    if (performance.now() - this.#prunedMs >= PRUNE_AFTER_MS) {
      this.#prunedMs = performance.now();
      this.#deleteAged();
      this.#deleteExcess();
    } else if (this.#unprunedBytes >= Math.min(PRUNE_AFTER_BYTES, this.#maxBytes / 4)) {
      this.#deleteExcess();
    }
  }

  /**
   * Deletes what was too old an hour ago, and still is: a clock that is wrong until somebody or
   * something has set it, at the start of the machine say, must not empty the record.
   */
  #deleteAged(): void {
    const cutoffMs = Date.now() - MAX_AGE_MS;
    this.#file.run(
      "DELETE FROM rejected WHERE id <= ? AND time_ms < ?",
      this.#lastAgedId,
      cutoffMs,
    );
    const [row] = this.#file.all(
      "SELECT max(id) AS last FROM rejected WHERE time_ms < ?",
      cutoffMs,
    );
    this.#lastAgedId = Number(row?.["last"] ?? 0);
  }

  #deleteExcess(): void {
    this.#unprunedBytes = 0;
    this.#file.run(
      `DELETE FROM rejected WHERE id <= (
         SELECT max(id) FROM (
           SELECT id, row_number() OVER newest AS place,
                  sum(length(topic) + length(reason) + length(payload) + ${ROW_BYTES}) OVER newest
                    AS bytes
           FROM rejected WINDOW newest AS (ORDER BY id DESC)
         ) WHERE place > ? OR bytes > ?
       )`,
      MAX_MESSAGES,
      this.#maxBytes,
    );
  }

  /**
   * Messages in the order of their rejection.
   *
   * @throws {SpoolError}
   */
  select({ afterId = 0, sinceMs = 0, limit }: Selection): RejectedMessage[] {
    const rows = this.#file.all(
      `SELECT id, time_ms, topic, reason, payload FROM rejected
       WHERE id > ? AND time_ms >= ? ORDER BY id LIMIT ?`,
      afterId,
      sinceMs,
      limit,
    );
    return rows.map((row) => ({
      id: Number(row["id"]),
      timeMs: Number(row["time_ms"]),
      topic: String(row["topic"]),
      reason: String(row["reason"]),
      payload: Buffer.from(row["payload"] as Uint8Array),
    }));
  }

  /**
   * Deletes messages that have been stored after all.
   *
   * @throws {SpoolError}
   */
  delete(ids: readonly number[]): void {
    this.#file.transaction(() => {
      for (const id of ids) this.#file.run("DELETE FROM rejected WHERE id = ?", id);
    });
  }
}

function keptOf(payload: Buffer): Buffer {
  return payload.subarray(0, MAX_PAYLOAD_BYTES);
}

/** Bytes that a message takes in the record. */
function sizeOf({ topic, reason, payload }: Rejection): number {
  return topic.length + reason.length + keptOf(payload).length + ROW_BYTES;
}

/** Parts that take no more than `maxBytes` each, except for a single message. */
function* split(rejections: readonly Rejection[], maxBytes: number): Generator<Rejection[]> {
  let part: Rejection[] = [];
  let bytes = 0;
  for (const rejection of rejections) {
    const size = sizeOf(rejection);
    if (part.length > 0 && bytes + size > maxBytes) {
      yield part;
      part = [];
      bytes = 0;
    }
    part.push(rejection);
    bytes += size;
  }
  if (part.length > 0) yield part;
}
