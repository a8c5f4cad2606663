/**
 * The dead letters: rejected messages with the reason, kept in the spool file. The operator can
 * list them and store them again.
 */

import { Buffer } from "node:buffer";
import { MAX_PAYLOAD_BYTES } from "../message/reading.ts";
import type { SpoolFile } from "./file.ts";

/** Maximum number and age of the kept messages; the oldest are deleted first. */
const MAX_MESSAGES = 100_000;
const MAX_AGE_MS = 30 * 24 * 3600 * 1000;

/** The share of the spool for rejected messages; waiting messages leave 1/12 free. */
const MAX_SHARE = 1 / 20;

/** Bytes of a row in addition to topic, reason and payload. */
const ROW_BYTES = 30;

/** Excess messages are deleted whenever this many bytes were added … */
const PRUNE_AFTER_BYTES = 8 * 2 ** 20;

/** … and expired messages at this interval. */
const PRUNE_AFTER_MS = 3600 * 1000;

/** A message that was not stored, and why. */
export interface Rejection {
  readonly topic: string;
  /** Without a full stop. */
  readonly reason: string;
  /** The payload. If it was too long for a reading, only its first `MAX_PAYLOAD_BYTES` are kept. */
  readonly payload: Buffer;
}

/** A rejected message in the record. */
export interface RejectedMessage extends Rejection {
  readonly id: number;
  /** When it was rejected, in ms since 1970-01-01 00:00 UTC. */
  readonly timeMs: number;
}

/** What to select from the record. */
export interface Selection {
  /** Only messages with a greater id. */
  readonly afterId?: number;
  /** Only messages rejected at this time or later, in ms since 1970-01-01 00:00 UTC. */
  readonly sinceMs?: number;
  /** The maximum number of messages. */
  readonly limit: number;
}

/** The rejected messages in an open spool file. */
export class RejectedMessages {
  readonly #file: SpoolFile;
  readonly #maxBytes: number;
  #unprunedBytes = 0;
  #prunedMs = -Infinity;
  /** The last message that had expired at the last check. */
  #lastAgedId = 0;

  /** The caller keeps ownership of `file` and closes it. */
  constructor(file: SpoolFile) {
    this.#file = file;
    this.#maxBytes = file.maxBytes * MAX_SHARE;
  }

  /**
   * Adds messages. When this returns, they are on disk.
   *
   * @throws {SpoolError} when they cannot be written. Some of them may have been.
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
   * Deletes excess and expired messages. Cheap to call often: most calls do nothing.
   *
   * @throws {SpoolError} when the file cannot be changed at the moment.
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
   * Deletes messages that had expired an hour ago and are still expired. A clock that is wrong for
   * a while, for example after the start of the machine, must not empty the record.
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
   * Returns messages in the order of their rejection.
   *
   * @throws {SpoolError} when the file cannot be read.
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
   * Deletes messages, after they have been stored.
   *
   * @throws {SpoolError} when none was deleted.
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

/** Bytes that a message occupies in the record. */
function sizeOf({ topic, reason, payload }: Rejection): number {
  return topic.length + reason.length + keptOf(payload).length + ROW_BYTES;
}

/** Splits into parts of up to `maxBytes`; a single larger message forms its own part. */
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
