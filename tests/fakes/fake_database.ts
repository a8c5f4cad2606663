/** A database whose answers a test decides, by the connections that the writer uses. */
import type { InsertResult } from "../../lib/database/connection.ts";
import { DatabaseError } from "../../lib/database/errors.ts";
import type { TableColumns } from "../../lib/database/table_columns.ts";
import type { Reading } from "../../lib/message/reading.ts";
import type { WriterConnection } from "../../lib/pipeline/writer.ts";

/** The columns of the table that `init` creates. */
export const COLUMNS: TableColumns = {
  value: "double precision",
  sid: "smallint",
  uniqueKey: true,
};

/** Answers a statement: resolves when it has committed, rejects as the real connection does. */
export type InsertAnswer = (readings: readonly Reading[]) => InsertResult | Promise<InsertResult>;

/** Stores every reading. */
export const storeAll: InsertAnswer = ({ length }) => insertResult({ stored: length });

/** The result of a statement that stored nothing, with some members replaced. */
export function insertResult(changes: Partial<InsertResult>): InsertResult {
  return { stored: 0, duplicates: 0, unknown: [], disabled: [], durationMs: 1, ...changes };
}

/** An error of the server; without a `sqlState` the connection failed. */
export function databaseError(message: string, sqlState?: string): DatabaseError {
  return new DatabaseError(message, { cause: undefined, sqlState });
}

/** Accepts connections and statements, and records both. */
export class FakeDatabase {
  readonly connections: FakeDatabaseConnection[] = [];
  /** The sids of the readings of each statement, in the order of arrival. */
  readonly statements: number[][] = [];
  /** Called before a connection is opened; may throw. */
  onOpen: () => void | Promise<void> = () => {};
  /** Returns the columns that a connection reads; may throw. */
  onReadColumns: () => TableColumns = () => COLUMNS;
  onInsert: InsertAnswer = storeAll;

  /** Opens a connection, whether the signal is aborted or not: an attempt may succeed late. */
  readonly open = async (): Promise<FakeDatabaseConnection> => {
    await this.onOpen();
    const connection = new FakeDatabaseConnection(this);
    this.connections.push(connection);
    return connection;
  };

  /** How many times each connection was closed. */
  get closings(): number[] {
    return this.connections.map(({ closings }) => closings);
  }
}

/** A connection; `lose` ends it as the server would. */
export class FakeDatabaseConnection implements WriterConnection {
  /** How many times the connection was closed, and how many times it was cut. */
  closings = 0;
  cuts = 0;
  readonly #database: FakeDatabase;
  readonly #lost = new AbortController();
  readonly #ended = Promise.withResolvers<never>();
  #columns: TableColumns | undefined;

  constructor(database: FakeDatabase) {
    this.#database = database;
    // Nobody waits for the end while no statement is pending.
    this.#ended.promise.catch(() => {});
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** The server closes the connection; a pending statement rejects. */
  lose(): void {
    this.#ended.reject(databaseError("the connection was closed by the other side"));
    this.#lost.abort();
  }

  cut(): void {
    this.cuts++;
    this.lose();
  }

  async readColumns(): Promise<TableColumns> {
    await Promise.resolve();
    return this.#columns = this.#database.onReadColumns();
  }

  async haveColumnsChanged(): Promise<boolean> {
    const before = this.#columns;
    const { value, sid } = await this.readColumns();
    return value !== before?.value || sid !== before.sid;
  }

  async insert(readings: readonly Reading[]): Promise<InsertResult> {
    this.#database.statements.push(readings.map(({ sid }) => sid));
    const answer = Promise.resolve(readings).then(this.#database.onInsert);
    return await Promise.race([answer, this.#ended.promise]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.closings++;
    this.#lost.abort();
    return Promise.resolve();
  }
}
