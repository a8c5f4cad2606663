/** The error of the spool. */

import { systemReason } from "../config/environment.ts";

/**
 * The spool cannot be used, or an operation on it failed. The message is the reason, without a full
 * stop: of the system, of SQLite, or that the spool is full.
 */
export class SpoolError extends Error {
  override readonly name = "SpoolError";
}

/** The error itself if it is a `SpoolError`, else a `SpoolError` with it as its cause. */
export function toSpoolError(error: unknown): SpoolError {
  return error instanceof SpoolError
    ? error
    : new SpoolError(systemReason(error), { cause: error });
}
