/**
 * The open file of the spool: an SQLite database. A committed transaction survives the end of the
 * process and a power failure. A damaged file is replaced while it is in use.
 */

import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import type { SpoolConfig } from "../config/config.ts";
import { systemReason } from "../config/environment.ts";
import { SpoolError, toSpoolError } from "./errors.ts";
import { lockSpoolDirectory } from "./lock.ts";
import { replaceDamagedFile, restoreDeletedFile } from "./replacement.ts";
import { isDamage, openDatabase, RESERVE } from "./schema.ts";

/** The name of the file in the spool directory. */
const FILE = "spool.sqlite";

/** Pages that one call of `shrink` frees. The call blocks the event loop. */
const SHRUNK_PAGES = 2_000;

/** A value of a column. */
export type SpoolValue = SQLInputValue;

/** The open file. The caller that opened it closes it, by disposal or by `close`. */
export class SpoolFile implements Disposable {
  readonly #path: string;
  /** The maximum size of the file. */
  readonly maxBytes: number;
  readonly #lock: DatabaseSync | undefined;
  #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  #onRescued: () => void = () => {};
  #rescueMs = -Infinity;
  readonly #rescueRetryMs: number;

  /** The path of the file for a configuration. */
  static path({ directory }: SpoolConfig): string {
    return `${directory}/${FILE}`;
  }

  /**
   * Opens the file for a logger, and locks its directory. Creates the directory and the file if
   * they do not exist, and replaces a damaged file.
   *
   * @throws {SpoolError} when another logger has locked the directory, or the directory or the file
   * cannot be created or read.
   */
  static open(config: SpoolConfig): SpoolFile {
    const { directory, maxBytes, tuning: { rescueRetryMs } } = config;
    try {
      Deno.mkdirSync(directory, { recursive: true });
    } catch (error) {
      throw new SpoolError(`cannot create the directory: ${systemReason(error)}`, {
        cause: error,
      });
    }
    const lock = lockSpoolDirectory(directory);
    try {
      return new SpoolFile(SpoolFile.path(config), { maxBytes, lock, rescueRetryMs });
    } catch (error) {
      lock.close();
      throw error;
    }
  }

  /**
   * Opens the file for a command, without a lock: a logger may be using it at the same time. A
   * damaged file is not replaced.
   *
   * @throws {SpoolError} when the file does not exist, is damaged or cannot be read.
   */
  static attach(config: SpoolConfig): SpoolFile {
    const path = SpoolFile.path(config);
    try {
      Deno.statSync(path);
    } catch (error) {
      const reason = error instanceof Deno.errors.NotFound
        ? `there is no '${path}'; the logger creates it when it first runs`
        : `cannot open '${path}': ${systemReason(error)}`;
      throw new SpoolError(reason, { cause: error });
    }
    return new SpoolFile(path, {
      maxBytes: config.maxBytes,
      lock: undefined,
      rescueRetryMs: config.tuning.rescueRetryMs,
    });
  }

  private constructor(
    path: string,
    { maxBytes, lock, rescueRetryMs }: {
      readonly maxBytes: number;
      readonly lock: DatabaseSync | undefined;
      readonly rescueRetryMs: number;
    },
  ) {
    this.#path = path;
    this.#rescueRetryMs = rescueRetryMs;
    this.maxBytes = maxBytes;
    this.#lock = lock;
    const isLogger = lock !== undefined;
    try {
      this.#database = openDatabase(path, { maxBytes, isLogger });
    } catch (error) {
      // Only the logger that holds the lock may replace a damaged file.
      if (!isLogger || !isDamage(error)) throw toSpoolError(error);
      this.#database = replaceDamagedFile(path, { damage: error, maxBytes });
    }
    if (isLogger) this.#reserve();
  }

  /** Called after a damaged file was replaced while it was in use: rows may be missing. */
  set onRescued(callback: () => void) {
    this.#onRescued = callback;
  }

  /**
   * Bytes in use, without the free pages of the file.
   *
   * @throws {SpoolError} as `all` does.
   */
  get usedBytes(): number {
    const read = (name: string): number => Number(this.all(`PRAGMA ${name}`)[0]?.[name] ?? 0);
    return (read("page_count") - read("freelist_count")) * read("page_size");
  }

  /**
   * Runs a query. Returns all rows, each as an object by column name.
   *
   * @throws {SpoolError} when the query fails. If the file was damaged or deleted, it has been
   * replaced, and a retry may succeed.
   */
  all(sql: string, ...values: SpoolValue[]): Record<string, unknown>[] {
    return this.#attempt(() => this.#prepare(sql).all(...values));
  }

  /**
   * Runs a statement, in its own transaction unless called within `transaction`. Returns the number
   * of changed rows.
   *
   * @throws {SpoolError} when nothing was changed, as for `all`, or because disk or spool are full.
   */
  run(sql: string, ...values: SpoolValue[]): number {
    return this.#attempt(() => Number(this.#prepare(sql).run(...values).changes));
  }

  /**
   * Runs `work` in a transaction. When this returns, the changes are on disk.
   *
   * @throws {SpoolError} when nothing was changed, as for `all`, or because disk or spool are full.
   */
  transaction(work: () => void): void {
    this.#attempt(() => {
      this.#database.exec("BEGIN IMMEDIATE");
      try {
        work();
        this.#database.exec("COMMIT");
      } catch (error) {
        // SQLite rolls back by itself after some errors (sqlite.org/lang_transaction.html).
        if (this.#database.isTransaction !== false) this.#rollBack();
        throw error;
      }
    });
  }

  /**
   * Returns space of deleted rows to the file system, up to 2,000 pages. Returns whether free pages
   * are left.
   *
   * @throws {SpoolError} when the file cannot be changed at the moment.
   */
  shrink(): boolean {
    // The statement frees one page per step; `all` runs all steps.
    this.all(`PRAGMA incremental_vacuum(${SHRUNK_PAGES})`);
    return Number(this.all("PRAGMA freelist_count")[0]?.["freelist_count"]) > 0;
  }

  /** Closes the file and releases the lock. */
  close(): void {
    this.#statements.clear();
    this.#database.close();
    this.#lock?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #reserve(): void {
    try {
      this.#database.exec(RESERVE);
    } catch {
      // The disk is full already. Without the reserve, rows cannot be deleted until space is free.
    }
  }

  #rollBack(): void {
    try {
      this.#database.exec("ROLLBACK");
    } catch {
      // SQLite has rolled back already; the caller reports the first error.
    }
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  /** Wraps errors of the driver in a `SpoolError`, and replaces a damaged or deleted file. */
  #attempt<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      // An error of a statement within `transaction` passes here twice; the first time wraps it.
      const isNew = this.#lock !== undefined && !(error instanceof SpoolError);
      if (isNew && (isDamage(error) || this.#isDeleted())) this.#replace(error);
      throw toSpoolError(error);
    }
  }

  /** Replaces the file if it is damaged or deleted, at most once every `rescueRetryMs`. */
  #replace(damage: unknown): void {
    if (performance.now() - this.#rescueMs < this.#rescueRetryMs) return;
    this.#rescueMs = performance.now();
    this.#statements.clear();
    const { maxBytes } = this;
    if (this.#isDeleted()) {
      this.#database = restoreDeletedFile(this.#path, { deleted: this.#database, maxBytes });
      return;
    }
    this.#database.close();
    try {
      this.#database = replaceDamagedFile(this.#path, { damage, maxBytes });
    } catch (error) {
      this.#database = new DatabaseSync(this.#path);
      throw error;
    }
    this.#reserve();
    this.#onRescued();
  }

  #isDeleted(): boolean {
    try {
      Deno.statSync(this.#path);
      return false;
    } catch (error) {
      // After any other error, the next statement reports its own reason.
      return error instanceof Deno.errors.NotFound;
    }
  }
}
