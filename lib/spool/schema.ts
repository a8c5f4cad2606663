/**
 * The tables of the spool file, and the settings to open it with.
 *
 * A committed transaction is on disk (`synchronous = FULL`). The file has a rollback journal that
 * keeps its size: on a full disk, messages can still be deleted. A write-ahead log would need
 * additional space for that.
 */

import { DatabaseSync } from "node:sqlite";
import { systemReason } from "../config/environment.ts";

/**
 * How long a statement waits while another process has the file locked. The wait blocks the event
 * loop, so the logger waits only briefly and tries again later.
 */
const LOGGER_BUSY_TIMEOUT_MS = 1_000;
const BUSY_TIMEOUT_MS = 10_000;

/**
 * Files up to this size are checked for damage when they are opened. The check of a larger file
 * takes too long; its damage is detected when the damaged part is read.
 */
const MAX_CHECKED_BYTES = 64 * 2 ** 20;

/** The tables. `Spool` assigns the ids of messages. `time_ms` counts from 1970-01-01 00:00 UTC. */
export const SCHEMA = `
CREATE TABLE IF NOT EXISTS message (
  id INTEGER PRIMARY KEY,
  time_ms INTEGER NOT NULL,
  topic TEXT NOT NULL,
  payload BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS rejected (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  time_ms INTEGER NOT NULL,
  topic TEXT NOT NULL,
  reason TEXT NOT NULL,
  payload BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS unknown_sensor (
  id INTEGER PRIMARY KEY,
  uuid TEXT NOT NULL,
  sid INTEGER NOT NULL,
  topic TEXT NOT NULL,
  value TEXT NOT NULL,
  unit TEXT NOT NULL,
  count INTEGER NOT NULL,
  first_ms INTEGER NOT NULL,
  last_ms INTEGER NOT NULL,
  UNIQUE (uuid, sid)
) STRICT;
CREATE TABLE IF NOT EXISTS subscription (
  id INTEGER PRIMARY KEY,
  client_id TEXT NOT NULL,
  filter TEXT NOT NULL,
  UNIQUE (client_id, filter)
) STRICT;`;

/**
 * Overwriting this row makes the journal large enough to delete some hundred messages on a full
 * disk: the journal keeps its size.
 */
export const RESERVE = `
CREATE TABLE IF NOT EXISTS reserve (id INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT;
INSERT OR IGNORE INTO reserve VALUES (1, zeroblob(${2 ** 19}));
UPDATE reserve SET content = randomblob(${2 ** 19});`;

/** The columns of each table that a rescue copies; the first one is the integer key. */
export const TABLES = {
  message: ["id", "time_ms", "topic", "payload"],
  rejected: ["id", "time_ms", "topic", "reason", "payload"],
  unknown_sensor: ["id", "uuid", "sid", "topic", "value", "unit", "count", "first_ms", "last_ms"],
  subscription: ["id", "client_id", "filter"],
} as const;

/** The limit of SQLite. */
const MAX_PAGES = 2 ** 32 - 2;

const DAMAGE = "database disk image is malformed";

/** Whether the file is damaged. The text of SQLite is all that the driver reports. */
export function isDamage(error: unknown): boolean {
  return new RegExp(`${DAMAGE}|file is not a database|malformed database schema`).test(
    systemReason(error),
  );
}

/**
 * Opens the file, or creates it. `maxBytes` limits its size; `isLogger` means that no other logger
 * uses it: then a small file is checked for damage. The caller closes the database.
 *
 * @throws {Error} of the driver, when the file cannot be opened, is damaged (see `isDamage`), or is
 * locked for too long.
 */
export function openDatabase(
  path: string,
  { maxBytes, isLogger }: { readonly maxBytes: number; readonly isLogger: boolean },
): DatabaseSync {
  const database = new DatabaseSync(path);
  try {
    // The journal mode comes first: in the default mode, other settings would delete the journal.
    database.exec(`
      PRAGMA busy_timeout = ${isLogger ? LOGGER_BUSY_TIMEOUT_MS : BUSY_TIMEOUT_MS};
      PRAGMA journal_mode = PERSIST;
      PRAGMA auto_vacuum = INCREMENTAL;
      PRAGMA synchronous = FULL;`);
    database.exec(SCHEMA);
    const pageSize = Number(database.prepare("PRAGMA page_size").get()?.["page_size"]);
    database.exec(`PRAGMA max_page_count = ${Math.min(Math.ceil(maxBytes / pageSize), MAX_PAGES)}`);
    // The check reads the whole file, and a running logger could not write meanwhile.
    if (!isLogger || Deno.statSync(path).size > MAX_CHECKED_BYTES) return database;
    const [check] = database.prepare("PRAGMA quick_check(1)").all();
    const found = String(check?.["quick_check"]);
    if (found !== "ok") throw new Error(`${DAMAGE}: ${found.replaceAll(/\s+/g, " ")}`);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}
