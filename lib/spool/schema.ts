/**
 * The tables of the spool's file, and how it is opened.
 *
 * A transaction is on disk when it has committed (`synchronous = FULL`). The journal is a rollback
 * journal that keeps its space: where a disk is full, messages can still be taken out, which a
 * write-ahead log has no room for.
 */

import { DatabaseSync } from "node:sqlite";
import { systemReason } from "../config/environment.ts";

/**
 * Time that a statement waits while another program reads or writes the file. A logger has other
 * things to do meanwhile, and tries again later.
 */
const LOGGER_BUSY_TIMEOUT_MS = 1_000;
const BUSY_TIMEOUT_MS = 10_000;

/**
 * Files up to this size are looked through for damage when they are opened; that of a larger one
 * takes long, and is found on the way.
 */
const MAX_CHECKED_BYTES = 64 * 2 ** 20;

/** Messages get their ids from who inserts them; `time_ms` counts from 1970-01-01 00:00 UTC. */
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
 * Writing this table over makes the journal large enough to take some hundred messages out of the
 * spool on a disk that is full: the journal keeps its size.
 */
export const RESERVE = `
CREATE TABLE IF NOT EXISTS reserve (id INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT;
INSERT OR IGNORE INTO reserve VALUES (1, zeroblob(${2 ** 19}));
UPDATE reserve SET content = randomblob(${2 ** 19});`;

/** The columns of the tables, for the rescue. */
export const TABLES = {
  message: ["id", "time_ms", "topic", "payload"],
  rejected: ["id", "time_ms", "topic", "reason", "payload"],
  unknown_sensor: ["id", "uuid", "sid", "topic", "value", "unit", "count", "first_ms", "last_ms"],
  subscription: ["id", "client_id", "filter"],
} as const;

/** SQLite's own limit. */
const MAX_PAGES = 2 ** 32 - 2;

const DAMAGE = "database disk image is malformed";

/** Whether the file is at fault. The driver has nothing but SQLite's words to tell by. */
export function isDamage(error: unknown): boolean {
  return new RegExp(`${DAMAGE}|file is not a database|malformed database schema`).test(
    systemReason(error),
  );
}

/** The journal's mode comes first: in the mode before, other settings would delete the journal. */
export function openDatabase(
  path: string,
  { maxBytes, isLogger }: { readonly maxBytes: number; readonly isLogger: boolean },
): DatabaseSync {
  const database = new DatabaseSync(path);
  try {
    database.exec(`
      PRAGMA busy_timeout = ${isLogger ? LOGGER_BUSY_TIMEOUT_MS : BUSY_TIMEOUT_MS};
      PRAGMA journal_mode = PERSIST;
      PRAGMA auto_vacuum = INCREMENTAL;
      PRAGMA synchronous = FULL;`);
    database.exec(SCHEMA);
    const pageSize = Number(database.prepare("PRAGMA page_size").get()?.["page_size"]);
    database.exec(`PRAGMA max_page_count = ${Math.min(Math.ceil(maxBytes / pageSize), MAX_PAGES)}`);
    // It reads the whole file, and keeps the logger from writing meanwhile.
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
