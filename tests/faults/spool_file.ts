/**
 * Reads the spool file without code of the logger.
 */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { waitUntil } from "../support/poll.ts";
import { type Reading, toPayload } from "../support/readings.ts";

/** The name of the file. */
export const SPOOL_FILE = "spool.sqlite";

/** Payloads of the messages in the spool of a directory, oldest first; a logger may be using it. */
function readSpool(directory: string): string[] {
  const rows = query(directory, "SELECT payload FROM message ORDER BY id");
  return rows.map(({ payload }) => new TextDecoder().decode(payload as Uint8Array));
}

/** Asserts that the spool of a directory contains exactly these readings, in any order. */
export function expectSpooled(directory: string, readings: readonly Reading[]): void {
  assert.deepEqual(readSpool(directory).toSorted(), readings.map(toPayload).toSorted());
}

/** Number of messages in the spool of a directory; a logger may be using it. */
export function countSpooled(directory: string): number {
  return Number(query(directory, "SELECT count(*) AS count FROM message")[0]?.["count"]);
}

/** Number of free pages of the file, which `shrink` returns to the file system. */
export function countFreePages(directory: string): number {
  return Number(query(directory, "PRAGMA freelist_count")[0]?.["freelist_count"]);
}

/** Waits until the spool has exactly this number of messages. */
export async function waitForSpooled(directory: string, count: number): Promise<void> {
  await waitUntil(() => countSpooled(directory) === count, {
    what: `${count} messages in the spool`,
    timeoutMs: 120_000,
    // Counting locks the file for the logger, and takes long for many messages.
    intervalMs: count < 20_000 ? 20 : 250,
  });
}

/** The start of an unfinished journal (SQLite, "Database File Format", section 3). */
const JOURNAL_MAGIC = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/** Whether a transaction has started to write and has not ended. */
export function isTransactionOpen(directory: string): boolean {
  try {
    using journal = Deno.openSync(`${directory}/${SPOOL_FILE}-journal`);
    const bytes = new Uint8Array(JOURNAL_MAGIC.length);
    return journal.readSync(bytes) === bytes.length &&
      bytes.every((byte, index) => byte === JOURNAL_MAGIC[index]);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

function query(directory: string, sql: string): Record<string, unknown>[] {
  const database = new DatabaseSync(`${directory}/${SPOOL_FILE}`, { readOnly: true });
  try {
    database.exec("PRAGMA busy_timeout = 5000");
    return database.prepare(sql).all();
  } finally {
    database.close();
  }
}
