/**
 * Replaces a spool file that is damaged, or that was deleted while the logger had it open. Both
 * functions return the new file, opened, with the rows that could be read.
 *
 * The new file is written beside the old one and renamed in one step. If the process ends before
 * that, the old file is unchanged and the next start tries again.
 */

import type { DatabaseSync } from "node:sqlite";
import { log } from "../common/log.ts";
import { formatCount } from "../common/text.ts";
import { systemReason } from "../config/environment.ts";
import { toSpoolError } from "./errors.ts";
import { copyRows, removeIfThere, rescueRows } from "./rescue.ts";
import { openDatabase, SCHEMA, TABLES } from "./schema.ts";

/**
 * Replaces the damaged file at `path` by a new one with all rows that can be read. The damaged file
 * is kept, with the suffix `.damaged-TIME`.
 *
 * @throws {SpoolError} when the new file cannot be written; the damaged one is still in its place.
 */
export function replaceDamagedFile(
  path: string,
  { damage, maxBytes }: { readonly damage: unknown; readonly maxBytes: number },
): DatabaseSync {
  const aside = `${path}.damaged-${new Date().toISOString().replace(/[:.]/g, "")}`;
  const fresh = `${path}.rescued`;
  try {
    for (const file of [fresh, `${fresh}-journal`]) removeIfThere(file);
    const into = openDatabase(fresh, { maxBytes: Infinity, isLogger: true });
    let rescued;
    try {
      rescued = rescueRows(path, { into, schema: SCHEMA, tables: TABLES });
    } finally {
      into.close();
    }
    removeIfThere(`${fresh}-journal`);
    keepAside(path, aside);
    // SQLite finds the journal of an interrupted transaction by the name of its file.
    renameIfThere(`${path}-journal`, `${aside}-journal`);
    Deno.renameSync(fresh, path);
    log.error(
      `The spool '${path}' is damaged (${systemReason(damage)}). The damaged file is kept as ` +
        `'${aside}'. Recovered ${
          formatCount(rescued.message, "message")
        } from it; the logger will store them.`,
    );
    return openDatabase(path, { maxBytes, isLogger: true });
  } catch (error) {
    throw toSpoolError(error);
  }
}

/**
 * Writes a deleted file again, from the handle `deleted`, which can still read its content. Closes
 * `deleted` on success.
 *
 * @throws {SpoolError} when the new file cannot be written; `deleted` stays open.
 */
export function restoreDeletedFile(
  path: string,
  { deleted, maxBytes }: { readonly deleted: DatabaseSync; readonly maxBytes: number },
): DatabaseSync {
  const fresh = `${path}.rescued`;
  try {
    // With a journal that does not belong to it, SQLite could not read the new file.
    for (const file of [fresh, `${fresh}-journal`, `${path}-journal`]) removeIfThere(file);
    const into = openDatabase(fresh, { maxBytes: Infinity, isLogger: true });
    let restored;
    try {
      restored = copyRows(deleted, { into, tables: TABLES });
    } finally {
      into.close();
    }
    removeIfThere(`${fresh}-journal`);
    Deno.renameSync(fresh, path);
    deleted.close();
    log.error(
      `The spool '${path}' was deleted while the logger was using it. The logger has restored it ` +
        `with ${formatCount(restored.message, "message")}.`,
    );
    return openDatabase(path, { maxBytes, isLogger: true });
  } catch (error) {
    throw toSpoolError(error);
  }
}

function renameIfThere(from: string, to: string): void {
  try {
    Deno.renameSync(from, to);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Keeps the file under a second name. `path` exists at every moment if the disk supports links. */
function keepAside(path: string, aside: string): void {
  try {
    Deno.linkSync(path, aside);
  } catch {
    // Not every file system has hard links. If the file itself is the problem, renaming fails, too.
    Deno.renameSync(path, aside);
  }
}
