/**
 * The writer: takes batches from the inbox, decodes and stores them. A delivery is finished only
 * when its reading is committed or its rejection recorded; the guarantee of the program rests on
 * this order.
 *
 * A batch is decoded when a connection takes it, not when it arrives, because the columns of the
 * table decide what a valid reading is. Each connection stores one batch at a time.
 */

import { onAbort } from "../common/abort.ts";
import { Backoff } from "../common/backoff.ts";
import { describeError } from "../common/error_text.ts";
import { log } from "../common/log.ts";
import type { DatabaseConfig } from "../config/database.ts";
import type { DatabaseConnection } from "../database/connection.ts";
import { ColumnsChangedError, DatabaseError } from "../database/errors.ts";
import { decodeReadings, storeReadings } from "../database/storing.ts";
import type { TableColumns } from "../database/table_columns.ts";
import type { Delivery } from "../message/delivery.ts";
import type { Batch } from "./batch.ts";
import type { DatabaseState, Worker } from "./database_state.ts";
import type { Inbox } from "./inbox.ts";
import type { Outcomes, RejectedDelivery } from "./outcomes.ts";

/** Messages that may wait for another attempt before the table counts as unusable. */
const MAX_POSTPONED = 100;

/** Time between two writings of the records. */
const RECORDS_INTERVAL_MS = 10_000;

/** The part of a database connection that the writer uses. */
export type WriterConnection = Pick<
  DatabaseConnection,
  | "cut"
  | "haveColumnsChanged"
  | "insert"
  | "lost"
  | "readColumns"
  | typeof Symbol.asyncDispose
>;

export interface WriterOptions {
  readonly inbox: Inbox;
  readonly outcomes: Outcomes;
  readonly state: DatabaseState;
  /** Opens a connection; aborting the signal gives the attempt up. The writer closes it. */
  readonly open: (signal: AbortSignal) => Promise<WriterConnection>;
}

/** Stores from `run` until its signal is aborted, or the inbox is closed and empty. */
export class Writer {
  readonly #workers: readonly Worker[];
  readonly #inbox: Inbox;
  readonly #outcomes: Outcomes;
  readonly #state: DatabaseState;
  readonly #open: WriterOptions["open"];
  #attempts = 0;

  constructor({ connections, tuning }: DatabaseConfig, options: WriterOptions) {
    this.#inbox = options.inbox;
    this.#outcomes = options.outcomes;
    this.#state = options.state;
    this.#open = options.open;
    this.#workers = Array.from({ length: connections }, () => ({
      backoff: new Backoff({ maxDelayMs: tuning.maxReconnectDelayMs }),
    }));
  }

  /** Resolves when no connection stores a batch any more. */
  async run(signal: AbortSignal): Promise<void> {
    const records = setInterval(() => this.#outcomes.keepRecords(), RECORDS_INTERVAL_MS);
    try {
      await Promise.all(this.#workers.map((worker) => this.#work(worker, signal)));
    } finally {
      clearInterval(records);
      this.#outcomes.flush();
    }
  }

  /** Attempts since the start to connect, and to store what was then rejected or postponed. */
  get attempts(): number {
    return this.#attempts;
  }

  /** Keeps one connection at work, and opens another whenever it fails. */
  async #work(worker: Worker, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const reason = await this.#serve(worker, signal);
      if (signal.aborted || reason === undefined) return;
      await this.#state.failed(worker, { reason, signal });
    }
  }

  /**
   * Opens a connection and stores through it for as long as it works. Returns why it failed, or
   * undefined when there is nothing more to store.
   */
  async #serve(worker: Worker, signal: AbortSignal): Promise<string | undefined> {
    this.#attempts++;
    try {
      await using connection = await this.#open(signal);
      // A statement that hangs must not outlive the shutdown.
      using _cut = onAbort(signal, () => connection.cut());
      if (signal.aborted) return undefined;
      const columns = await connection.readColumns();
      using _open = this.#state.opened(worker, columns);
      await this.#drain(worker, { connection, columns, signal });
      return undefined;
    } catch (error) {
      return describeError(error);
    }
  }

  /** Stores batch after batch until there are no more; rejects when the connection fails. */
  async #drain(worker: Worker, { connection, columns, signal }: Session): Promise<void> {
    const stop = AbortSignal.any([connection.lost, signal]);
    for (let batch; (batch = await this.#inbox.take(stop)) !== undefined;) {
      let outcome;
      try {
        outcome = await this.#process(batch, { connection, columns });
      } catch (error) {
        const tookTooLong = error instanceof DatabaseError && error.isTimeout;
        this.#inbox.giveBack(batch, { tookTooLong });
        if (!(error instanceof ColumnsChangedError)) throw error;
        const before = columns;
        columns = await connection.readColumns();
        logChange(before, columns);
        continue;
      }
      const { isStored, isPostponed } = outcome;
      if (isPostponed) this.#inbox.postpone(batch);
      else this.#inbox.finish(batch, { isStored });
      if (isStored) this.#state.succeeded(worker, columns);
      this.#state.batchEnded(columns);
    }
    if (connection.lost.aborted) throw new Error("the server closed the connection");
  }

  /**
   * Gives every delivery of a batch its outcome, or postpones it; rejects if the connection fails
   * before that.
   */
  async #process(
    batch: Batch,
    { connection, columns }: Omit<Session, "signal">,
  ): Promise<ProcessedBatch> {
    const rejected: RejectedDelivery[] = [];
    const reject = (delivery: Delivery, reason: string): void => {
      rejected.push({ delivery, reason });
    };
    const decoded = decodeReadings(batch.unfinished, columns, reject);
    // The column may have got a type that can hold the value.
    if (rejected.length > 0 && await connection.haveColumnsChanged()) {
      throw new ColumnsChangedError();
    }
    let stored = 0;
    let failed = 0;
    try {
      await storeReadings(connection, decoded, {
        onStored: (part, result) => {
          stored += part.length;
          this.#outcomes.inserted(part, result);
        },
        onRejected: ({ message }, reason) => {
          // Splitting a large batch row by row is progress, although nothing is finished yet.
          this.#attempts++;
          reject(message, reason);
        },
        onFailed: ({ message }, error) => {
          failed++;
          if (this.#inbox.postponedCount + failed > MAX_POSTPONED) throw error;
          this.#attempts++;
          this.#outcomes.postponed(message, error.message);
        },
      });
    } finally {
      this.#outcomes.rejected(rejected);
    }
    // A batch without a valid reading says nothing about the state of the database.
    return { isStored: stored > 0, isPostponed: failed > 0 };
  }
}

function logChange(before: TableColumns, { value, sid }: TableColumns): void {
  if (value !== before.value) log.info(`The column sensor_data.value is of type ${value} now.`);
  if (sid !== before.sid) log.info(`The column sensors.sensor_sid is of type ${sid} now.`);
}

/** What happened to a batch. */
interface ProcessedBatch {
  /** Whether the database stored some of it. */
  readonly isStored: boolean;
  /** Whether some of it is to be tried again later. */
  readonly isPostponed: boolean;
}

/** An open connection, the columns of its table, and the end of its work. */
interface Session {
  readonly connection: WriterConnection;
  readonly columns: TableColumns;
  readonly signal: AbortSignal;
}
