/**
 * A connection to the database, and the insert of a batch. The only module that imports the
 * database driver.
 */

import { Socket } from "node:net";
// @ts-types="@types/pg"
import pg from "pg";
import { onAbort } from "../common/abort.ts";
import { describeError } from "../common/error_text.ts";
import type { DatabaseConfig, SslMode } from "../config/database.ts";
import type { Reading } from "../message/reading.ts";
import { encodeBatch } from "./binary_arrays.ts";
import { ColumnsChangedError, DatabaseError } from "./errors.ts";
import { type InsertRow, insertSql } from "./insert_statement.ts";
import {
  COLUMNS_SQL,
  type ColumnsRow,
  type TableColumns,
  toTableColumns,
} from "./table_columns.ts";
import { explainTls, hasNoTls, INVALID_AUTHORIZATION, isRefusedForTls, tlsOptions } from "./tls.ts";

/** How long `haveColumnsChanged` relies on the types that were read last. */
const COLUMNS_FRESH_MS = 1_000;

/** How long `close` waits for the server. */
const CLOSE_TIMEOUT_MS = 1_000;

/** The outcome of each reading of a batch. Indices into the batch count from 0. */
export interface InsertResult {
  readonly stored: number;
  readonly duplicates: number;
  /** Indices of readings whose sensor is not registered. */
  readonly unknown: readonly number[];
  /** Indices of readings whose sensor is not enabled. */
  readonly disabled: readonly number[];
  /** Time from sending the statement to the confirmation of its commit. */
  readonly durationMs: number;
}

/** An open connection. The caller that opened it closes it, by disposal. */
export class DatabaseConnection implements AsyncDisposable {
  readonly #client: pg.Client;
  readonly #socket: () => Socket | undefined;
  readonly #lost = new AbortController();
  #columns: TableColumns | undefined;
  #columnsReadMs = -Infinity;

  /**
   * Connects and configures the session. With `sslMode` 'prefer', tries again without TLS if the
   * server does not accept it.
   *
   * @throws {DatabaseError} when the database cannot be reached or refuses the connection, or when
   * `signal` is aborted.
   */
  static async open(
    config: DatabaseConfig,
    signal: AbortSignal = new AbortController().signal,
  ): Promise<DatabaseConnection> {
    const { sslMode } = config;
    try {
      return await connect(config, { sslMode, signal });
    } catch (error) {
      const mayTryWithoutTls = sslMode === "prefer" && !signal.aborted &&
        error instanceof DatabaseError && isRefusedForTls(error);
      if (!mayTryWithoutTls) throw error;
      return await connectWithoutTls(config, { signal, refusal: error });
    }
  }

  /** Use `open`. */
  constructor(client: pg.Client, socket: () => Socket | undefined) {
    this.#client = client;
    this.#socket = socket;
    client.on("error", () => this.#lost.abort());
    client.on("end", () => this.#lost.abort());
  }

  /** Aborted when the connection is lost or closed. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** Whether the connection is encrypted. */
  get encrypted(): boolean {
    return this.#client.ssl !== false;
  }

  /**
   * Reads the types of the columns. `insert` calls it if they have not been read yet.
   *
   * @throws {DatabaseError} when a table or column is missing or has a type that cannot be used.
   */
  async readColumns(): Promise<TableColumns> {
    const rows = await this.query<ColumnsRow>(COLUMNS_SQL);
    this.#columns = toTableColumns(rows);
    this.#columnsReadMs = performance.now();
    return this.#columns;
  }

  /**
   * Whether the columns have other types than before. Reads them again, unless they were read
   * within the last second.
   *
   * @throws {DatabaseError} as `readColumns`.
   */
  async haveColumnsChanged(): Promise<boolean> {
    const before = this.#columns;
    if (performance.now() - this.#columnsReadMs < COLUMNS_FRESH_MS) return false;
    const { value, sid } = await this.readColumns();
    return value !== before?.value || sid !== before.sid;
  }

  /**
   * Stores a batch in its own transaction; resolves when that has committed.
   *
   * @throws {ColumnsChangedError} when the columns must be read and the readings decoded again.
   * @throws {DatabaseError} when no reading was stored, or when it is not known whether any was.
   */
  async insert(readings: readonly Reading[]): Promise<InsertResult> {
    const columns = this.#columns ?? await this.readColumns();
    const startMs = performance.now();
    const rows = await this.query<InsertRow>(
      insertSql(columns),
      encodeBatch(readings, columns),
      `insert into ${columns.value}`,
    );
    const { stored = 0, unknown, disabled, valueType } = rows[0] ?? {};
    if (valueType !== columns.value) throw new ColumnsChangedError();
    const noSensor = (unknown ?? []).map((ordinal) => ordinal - 1);
    const notEnabled = (disabled ?? []).map((ordinal) => ordinal - 1);
    const duplicates = readings.length - stored - noSensor.length - notEnabled.length;
    const durationMs = performance.now() - startMs;
    return { stored, duplicates, unknown: noSensor, disabled: notEnabled, durationMs };
  }

  /**
   * Runs a statement and returns its rows. With a `name`, it is prepared once for the connection.
   *
   * @throws {DatabaseError} when the statement fails, or the connection is lost.
   */
  async query<Row extends pg.QueryResultRow>(
    text: string,
    values?: unknown[],
    name?: string,
  ): Promise<Row[]> {
    try {
      const result = await this.#client.query<Row>({
        text,
        ...(values && { values }),
        ...(name !== undefined && { name }),
      });
      return result.rows;
    } catch (error) {
      throw wrapError(error, this.#client.user ?? "");
    }
  }

  /** Closes the socket at once: a pending statement rejects. The caller must still call `close`. */
  cut(): void {
    this.#socket()?.destroy();
  }

  /** Ends the session and closes the socket, after at most one second. Never rejects. */
  async close(): Promise<void> {
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, CLOSE_TIMEOUT_MS);
    // `end` rejects if the connection is broken. It counts as closed then.
    await Promise.race([this.#client.end().catch(() => {}), late.promise]);
    clearTimeout(timer);
    this.cut();
    this.#lost.abort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

async function connect(
  config: DatabaseConfig,
  { sslMode, signal }: { readonly sslMode: SslMode; readonly signal: AbortSignal },
): Promise<DatabaseConnection> {
  const { endpoint: { host, port }, user, password, name, tuning } = config;
  let socket: Socket | undefined;
  const client = new pg.Client({
    host,
    port,
    user,
    password,
    database: name,
    ssl: tlsOptions(sslMode, config),
    // A separate socket, so that `cut` also works while the driver waits for the server.
    stream: () => socket = new Socket(),
    application_name: "kraken-logger",
    query_timeout: tuning.queryTimeoutMs,
    keepAlive: true,
  });
  const connection = new DatabaseConnection(client, () => socket);
  // True from the server's answer to SSLRequest until its first message over TLS.
  let isTlsNegotiated = false;
  client.connection.once("sslconnect", () => isTlsNegotiated = true);
  client.connection.once("message", () => isTlsNegotiated = false);
  using _ = onAbort(signal, () => connection.cut());
  // A separate timer: the driver misses some ends of a connection during the TLS handshake.
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(new Error("no answer in time")),
    tuning.databaseConnectTimeoutMs,
  );
  try {
    await Promise.race([client.connect(), late.promise]);
    await client.query(sessionSql(tuning.statementTimeoutMs));
    return connection;
  } catch (error) {
    const isTlsFailure = isTlsNegotiated || hasNoTls(error);
    await connection.close();
    if (!isTlsFailure) throw wrapError(error, user);
    const cause = await explainTls(error, config.endpoint);
    throw new DatabaseError(describeError(cause), { cause, isTlsFailure });
  } finally {
    clearTimeout(timer);
  }
}

/** The second attempt of `prefer`. If it is refused, too, the error gives both reasons. */
async function connectWithoutTls(
  config: DatabaseConfig,
  { signal, refusal }: { readonly signal: AbortSignal; readonly refusal: DatabaseError },
): Promise<DatabaseConnection> {
  try {
    return await connect(config, { sslMode: "disable", signal });
  } catch (error) {
    if (!(error instanceof DatabaseError) || error.sqlState !== INVALID_AUTHORIZATION) throw error;
    const { message, sqlState } = error;
    throw new DatabaseError(`${message}; with TLS: ${refusal.message}`, { cause: error, sqlState });
  }
}

/**
 * The statement that configures a session. A commit must be durable: `synchronous_commit = off` is
 * replaced by `on`, and stricter values stay. TimescaleDB's limit of decompressed rows per insert
 * is lifted: it protects users who do not expect decompression, but late readings require it.
 */
function sessionSql(statementTimeoutMs: number): string {
  return `
SELECT set_config('statement_timeout', '${statementTimeoutMs}', false),
       set_config('TimeZone', 'UTC', false),
       CASE current_setting('synchronous_commit')
         WHEN 'off' THEN set_config('synchronous_commit', 'on', false)
       END,
       (SELECT set_config(name, '0', false) FROM pg_settings
        WHERE name = 'timescaledb.max_tuples_decompressed_per_dml_transaction')`;
}

/** Hints for the operator, by SQLSTATE. */
const HINTS: Readonly<Record<string, string>> = {
  "28000": "check DATABASE_USER and the server's pg_hba.conf",
  "28P01": "check DATABASE_USER and DATABASE_PASSWORD",
  "3D000": "check DATABASE_NAME",
  "42501": "grant SELECT, INSERT on sensor_data and SELECT on sensors",
  "25006": "the server is a standby, or the database is set to read-only",
  "53100": "free space on the disk of the database server",
  "53300": "raise max_connections of the database server, or lower DATABASE_CONNECTIONS",
  "57014": "another session holds a lock, or the server is overloaded",
};

function wrapError(error: unknown, user: string): DatabaseError {
  if (error instanceof DatabaseError) return error;
  if (!(error instanceof pg.DatabaseError)) {
    return new DatabaseError(describeError(error), { cause: error });
  }
  // The server's message contains the user name, which the configuration treats as a secret.
  const text = error.message.replaceAll(`user "${user}"`, "the user in DATABASE_USER")
    .replaceAll(`"${user}"`, "of DATABASE_USER");
  const hint = HINTS[error.code ?? ""];
  const message = hint === undefined ? text : `${text} (${hint})`;
  const { code: sqlState, constraint, column } = error;
  return new DatabaseError(message, { cause: error, sqlState, constraint, column });
}
