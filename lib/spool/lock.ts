/** The lock on the spool directory: at most one logger uses a spool. */

import { DatabaseSync } from "node:sqlite";
import { systemReason } from "../config/environment.ts";
import { SpoolError } from "./errors.ts";

const LOCK_FILE = "spool.lock";

/**
 * Locks the directory. The caller owns the returned handle and releases the lock by closing it. The
 * operating system releases it when the process ends, even after SIGKILL.
 *
 * @throws {SpoolError} when another logger holds the lock, or the lock file cannot be created.
 */
export function lockSpoolDirectory(directory: string): DatabaseSync {
  let lock: DatabaseSync | undefined;
  try {
    lock = new DatabaseSync(`${directory}/${LOCK_FILE}`);
    // The transaction writes nothing, so that locking works on a full disk.
    lock.exec("PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
    return lock;
  } catch (error) {
    lock?.close();
    // The driver reports SQLITE_BUSY only as text.
    const reason = /locked/.test(systemReason(error))
      ? "another logger is using it; each logger needs its own SPOOL_DIRECTORY"
      : systemReason(error);
    throw new SpoolError(reason, { cause: error });
  }
}
