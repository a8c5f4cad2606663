/**
 * The file of the spool: an SQLite database that survives whatever ends the program or the machine.
 * Opening it, locking it, replacing a damaged one.
 */

import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import type { SpoolConfig } from "../config/config.ts";
import { systemReason } from "../config/environment.ts";
import { log } from "../common/log.ts";
import { copyRows, removeIfThere, rescueRows } from "./rescue.ts";
import { isDamage, openDatabase, RESERVE, SCHEMA, TABLES } from "./schema.ts";

/** The file in the spool directory, and the one that tells another logger to keep away. */
const FILE = "spool.sqlite";
const LOCK_FILE = "spool.lock";

/** Pages given back at a time: each takes a little while, in which nothing else is done. */
const SHRUNK_PAGES = 2_000;

/** The spool cannot be used, or not at the moment; the message says why. */
export class SpoolError extends Error {
  override readonly name = "SpoolError";
}

/** A value of a column. */
export type SpoolValue = SQLInputValue;

/** The open file. Whoever opened it closes it. */
export class SpoolFile implements Disposable {
  readonly #path: string;
  /** What the file may take of the disk. */
  readonly maxBytes: number;
  readonly #lock: DatabaseSync | undefined;
  #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  #onRescued: () => void = () => {};
  #rescueMs = -Infinity;
  readonly #rescueRetryMs: number;

  /** Where the spool of a configuration is. */
  static path({ directory }: SpoolConfig): string {
    return `${directory}/${FILE}`;
  }

  /**
   * Opens the spool of a logger, which nobody else may do at the same time. A damaged file is moved
   * aside, and what can be read of it is taken over.
   *
   * @throws {SpoolError} when another logger has it, or the directory cannot be used.
   */
  static open(config: SpoolConfig): SpoolFile {
    const { directory, maxBytes, tuning: { rescueRetryMs } } = config;
    try {
      Deno.mkdirSync(directory, { recursive: true });
    } catch (error) {
      throw new SpoolError(`the directory cannot be created: ${systemReason(error)}`, {
        cause: error,
      });
    }
    const lock = lockDirectory(directory);
    try {
      return new SpoolFile(SpoolFile.path(config), { maxBytes, lock, rescueRetryMs });
    } catch (error) {
      lock.close();
      throw error;
    }
  }

  /**
   * Opens the spool beside a logger that may be running, to look at what it keeps.
   *
   * @throws {SpoolError} when there is none, or it cannot be read.
   */
  static attach(config: SpoolConfig): SpoolFile {
    const path = SpoolFile.path(config);
    try {
      Deno.statSync(path);
    } catch (error) {
      throw new SpoolError(`there is no '${path}': ${systemReason(error)}`, { cause: error });
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
      // Beside a logger that runs, it is that one's to put right.
      if (!isLogger || !isDamage(error)) throw wrap(error);
      this.#database = this.#rescue(error);
    }
    if (isLogger) this.#reserve();
  }

  /** Called when a damaged file has been replaced: rows may be missing. */
  set onRescued(callback: () => void) {
    this.#onRescued = callback;
  }

  /** Bytes in use; free pages of the file aside. */
  get usedBytes(): number {
    const read = (name: string): number => Number(this.all(`PRAGMA ${name}`)[0]?.[name] ?? 0);
    return (read("page_count") - read("freelist_count")) * read("page_size");
  }

  /**
   * The rows of a query.
   *
   * @throws {SpoolError}
   */
  all(sql: string, ...values: SpoolValue[]): Record<string, unknown>[] {
    return this.#attempt(() => this.#prepare(sql).all(...values));
  }

  /**
   * Runs a statement; outside of `transaction` it is one of its own. Returns how many rows it
   * has changed.
   *
   * @throws {SpoolError}
   */
  run(sql: string, ...values: SpoolValue[]): number {
    return this.#attempt(() => Number(this.#prepare(sql).run(...values).changes));
  }

  /**
   * Runs `work` in a transaction. When this returns, it is on disk.
   *
   * @throws {SpoolError} when nothing of it was written, because the disk or the spool is full, say.
   */
  transaction(work: () => void): void {
    this.#attempt(() => {
      this.#database.exec("BEGIN IMMEDIATE");
      try {
        work();
        this.#database.exec("COMMIT");
      } catch (error) {
        // Some errors have rolled back already.
        if (this.#database.isTransaction !== false) this.#rollBack();
        throw error;
      }
    });
  }

  /** Gives space of deleted rows back to the file system. Returns whether there is more of it. */
  shrink(): boolean {
    // One step of the statement frees one page.
    this.all(`PRAGMA incremental_vacuum(${SHRUNK_PAGES})`);
    return Number(this.all("PRAGMA freelist_count")[0]?.["freelist_count"]) > 0;
  }

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
      // On a disk that is full already, messages may have to stay longer than they are needed.
    }
  }

  #rollBack(): void {
    try {
      this.#database.exec("ROLLBACK");
    } catch {
      // Rolled back already; the error that led here is the one to report.
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

  /** Turns what the driver throws into a `SpoolError`, and replaces a file that is damaged. */
  #attempt<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      // A statement within a transaction has been here already.
      const isNew = this.#lock !== undefined && !(error instanceof SpoolError);
      if (isNew && (isDamage(error) || this.#isGone())) this.#replace(error);
      throw wrap(error);
    }
  }

  /** Puts another file in the place of the damaged one, or tries again later. */
  #replace(damage: unknown): void {
    if (performance.now() - this.#rescueMs < this.#rescueRetryMs) return;
    this.#rescueMs = performance.now();
    this.#statements.clear();
    if (this.#isGone()) {
      this.#database = this.#restore();
      return;
    }
    this.#database.close();
    try {
      this.#database = this.#rescue(damage);
    } catch (error) {
      this.#database = new DatabaseSync(this.#path);
      throw error;
    }
    this.#reserve();
    this.#onRescued();
  }

  #isGone(): boolean {
    try {
      Deno.statSync(this.#path);
      return false;
    } catch (error) {
      return error instanceof Deno.errors.NotFound;
    }
  }

  /** Writes a file that somebody has removed anew: who has it open can still read what was in it. */
  #restore(): DatabaseSync {
    const fresh = `${this.#path}.rescued`;
    try {
      // A journal without its file would keep it from being read.
      for (const file of [fresh, `${fresh}-journal`, `${this.#path}-journal`]) removeIfThere(file);
      const into = openDatabase(fresh, { maxBytes: Infinity, isLogger: true });
      let restored;
      try {
        restored = copyRows(this.#database, { into, tables: TABLES });
      } finally {
        into.close();
      }
      removeIfThere(`${fresh}-journal`);
      Deno.renameSync(fresh, this.#path);
      this.#database.close();
      log.error(
        `The spool '${this.#path}' was removed while it was in use. It is written anew, with ` +
          `${restored.message} messages.`,
      );
      return openDatabase(this.#path, { maxBytes: this.maxBytes, isLogger: true });
    } catch (error) {
      throw wrap(error);
    }
  }

  /**
   * Begins a new file with what can be read of the damaged one, and puts it in its place, which
   * stays as it is until then: whatever ends this in between, the next start begins again.
   */
  #rescue(damage: unknown): DatabaseSync {
    const aside = `${this.#path}.damaged-${new Date().toISOString().replace(/[:.]/g, "")}`;
    const fresh = `${this.#path}.rescued`;
    try {
      for (const file of [fresh, `${fresh}-journal`]) removeIfThere(file);
      const database = openDatabase(fresh, { maxBytes: Infinity, isLogger: true });
      let rescued;
      try {
        rescued = rescueRows(this.#path, { into: database, schema: SCHEMA, tables: TABLES });
      } finally {
        database.close();
      }
      removeIfThere(`${fresh}-journal`);
      keep(this.#path, aside);
      // The journal of an interrupted transaction belongs to its file, by name.
      renameIfThere(`${this.#path}-journal`, `${aside}-journal`);
      Deno.renameSync(fresh, this.#path);
      log.error(
        `The spool '${this.#path}' is damaged (${systemReason(damage)}). It is kept as ` +
          `'${aside}'; ${rescued.message} messages could be read from it and are stored.`,
      );
      return openDatabase(this.#path, { maxBytes: this.maxBytes, isLogger: true });
    } catch (error) {
      throw wrap(error);
    }
  }
}

/** Held until it is closed, and freed by the system when the process ends, however it does. */
function lockDirectory(directory: string): DatabaseSync {
  let lock: DatabaseSync | undefined;
  try {
    lock = new DatabaseSync(`${directory}/${LOCK_FILE}`);
    // Nothing is written, so that a full disk is no hindrance.
    lock.exec("PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
    return lock;
  } catch (error) {
    lock?.close();
    const reason = /locked/.test(systemReason(error))
      ? "another logger is using it; each needs a directory of its own"
      : systemReason(error);
    throw new SpoolError(reason, { cause: error });
  }
}

function wrap(error: unknown): SpoolError {
  return error instanceof SpoolError
    ? error
    : new SpoolError(systemReason(error), { cause: error });
}

function renameIfThere(from: string, to: string): void {
  try {
    Deno.renameSync(from, to);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Gives a file another name, too: the place of the first one is never empty. */
function keep(path: string, aside: string): void {
  try {
    Deno.linkSync(path, aside);
  } catch {
    Deno.renameSync(path, aside); // Not every file system has links.
  }
}
