/**
 * One connection to the database, with the one statement that stores a batch. The only module that
 * knows the database driver.
 */

import { Socket } from "node:net";
// @ts-types="@types/pg"
import pg from "pg";
import type { DatabaseConfig, SslMode } from "../config/config.ts";
import { encodeBatch } from "./binary_arrays.ts";
import {
  type Catalogue,
  CATALOGUE_SQL,
  type CatalogueRow,
  toCatalogue,
  TYPE_NAME,
} from "./table_columns.ts";
import { ColumnsChangedError, DatabaseError } from "./errors.ts";
import { explainTls, hasNoTls, INVALID_AUTHORIZATION, isRefusedForTls, tlsOptions } from "./tls.ts";
import type { Reading, ReadingColumns, ValueType } from "../message/reading.ts";
import { describeError } from "../common/retry.ts";

const CONNECT_TIMEOUT_MS = 10_000;

/** The server gives a statement up after this time, … */
const STATEMENT_TIMEOUT_MS = 30_000;

/** … and where it does not answer even then, the connection is given up. */
const QUERY_TIMEOUT_MS = 35_000;

/** How long the types of the columns are taken for what they were. */
const CATALOGUE_FRESH_MS = 1_000;

/** Time for a polite goodbye. */
const CLOSE_TIMEOUT_MS = 1_000;

/** What became of a batch. Indices count the readings of the batch from 0. */
export interface InsertResult {
  readonly stored: number;
  readonly duplicates: number;
  /** Readings whose sensor is not registered. */
  readonly unknown: readonly number[];
  /** Readings whose sensor is not enabled. */
  readonly disabled: readonly number[];
  /** Time from the statement to the answer that it has committed. */
  readonly durationMs: number;
}

/** An open connection. Whoever opened it closes it. */
export class DatabaseConnection {
  readonly #client: pg.Client;
  readonly #socket: () => Socket | undefined;
  readonly #lost = new AbortController();
  #catalogue: Catalogue | undefined;
  #catalogueReadMs = -Infinity;

  /**
   * Connects and sets the session up. Aborting `signal` gives the attempt up.
   *
   * @throws {DatabaseError} when the database cannot be reached or refuses.
   */
  static async open(config: DatabaseConfig, signal: AbortSignal): Promise<DatabaseConnection> {
    const { sslMode } = config;
    try {
      return await connect(config, { sslMode, signal });
    } catch (error) {
      const mayDoWithout = sslMode === "prefer" && !signal.aborted &&
        error instanceof DatabaseError && isRefusedForTls(error);
      if (!mayDoWithout) throw error;
      return await connectWithoutTls(config, { signal, refusal: error });
    }
  }

  /** For `connect` only. */
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
   * Reads the types of the columns, which `insert` needs.
   *
   * @throws {DatabaseError} when a table or column is missing or of a type that cannot be used.
   */
  async readCatalogue(): Promise<Catalogue> {
    const rows = await this.query<CatalogueRow>(CATALOGUE_SQL);
    this.#catalogue = toCatalogue(rows);
    this.#catalogueReadMs = performance.now();
    return this.#catalogue;
  }

  /**
   * Reads the catalogue again, unless that was done within the last second, and returns whether the
   * columns have other types than before.
   *
   * @throws {DatabaseError} as `readCatalogue`.
   */
  async haveColumnsChanged(): Promise<boolean> {
    const before = this.#catalogue;
    if (performance.now() - this.#catalogueReadMs < CATALOGUE_FRESH_MS) return false;
    const { value, sid } = await this.readCatalogue();
    return value !== before?.value || sid !== before.sid;
  }

  /**
   * Stores a batch in a transaction of its own; resolves when that has committed.
   *
   * @throws {ColumnsChangedError} when the catalogue has to be read, and the readings decoded anew.
   * @throws {DatabaseError} when nothing of it was stored, or nobody knows whether it was.
   */
  async insert(readings: readonly Reading[]): Promise<InsertResult> {
    const columns = this.#catalogue ?? await this.readCatalogue();
    const startMs = performance.now();
    const rows = await this.query<InsertRow>(
      insertSql(columns),
      encodeBatch(readings, columns),
      `insert into ${columns.value}`,
    );
    const { stored = 0, unknown, disabled, valueType } = rows[0] ?? {};
    if (valueType !== columns.value) {
      throw new ColumnsChangedError();
    }
    const noSensor = (unknown ?? []).map((ordinal) => ordinal - 1);
    const notEnabled = (disabled ?? []).map((ordinal) => ordinal - 1);
    const duplicates = readings.length - stored - noSensor.length - notEnabled.length;
    const durationMs = performance.now() - startMs;
    return { stored, duplicates, unknown: noSensor, disabled: notEnabled, durationMs };
  }

  /**
   * Runs a statement. With a `name` it is prepared once for the connection.
   *
   * @throws {DatabaseError}
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

  /** Ends whatever is under way; it rejects. The connection is still to be closed. */
  cut(): void {
    this.#socket()?.destroy();
  }

  /** Says goodbye if the server listens, and closes. Never rejects. */
  async close(): Promise<void> {
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, CLOSE_TIMEOUT_MS);
    // The connection may be broken already, which is one way of being closed.
    await Promise.race([this.#client.end().catch(() => {}), late.promise]);
    clearTimeout(timer);
    this.cut();
    this.#lost.abort();
  }
}

async function connect(
  config: DatabaseConfig,
  { sslMode, signal }: { readonly sslMode: SslMode; readonly signal: AbortSignal },
): Promise<DatabaseConnection> {
  const { endpoint: { host, port }, user, password, name } = config;
  let socket: Socket | undefined;
  const client = new pg.Client({
    host,
    port,
    user,
    password,
    database: name,
    ssl: tlsOptions(sslMode, config),
    // Ours, so that a connection to a server that does not answer can be cut.
    stream: () => socket = new Socket(),
    application_name: "kraken-logger",
    query_timeout: QUERY_TIMEOUT_MS,
    keepAlive: true,
  });
  const connection = new DatabaseConnection(client, () => socket);
  // From the server's word that it has TLS to the first that it says over it.
  let isTlsNegotiated = false;
  client.connection.once("sslconnect", () => isTlsNegotiated = true);
  client.connection.once("message", () => isTlsNegotiated = false);
  const cut = (): void => connection.cut();
  signal.addEventListener("abort", cut);
  // Ours, too: not every end of a connection that is being encrypted reaches the driver.
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error("no answer in time")), CONNECT_TIMEOUT_MS);
  try {
    await Promise.race([client.connect(), late.promise]);
    await client.query(SESSION_SQL);
    return connection;
  } catch (error) {
    const isTlsFailure = isTlsNegotiated || hasNoTls(error);
    await connection.close();
    if (!isTlsFailure) throw wrapError(error, user);
    const cause = await explainTls(error, config.endpoint);
    throw new DatabaseError(describeError(cause), { cause, isTlsFailure });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", cut);
  }
}

/** What `prefer` does next. Where that is refused as well, both reasons may be the one to mend. */
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
 * What a commit must mean here is that the row survives: a server whose default is to answer
 * before the row is on disk is asked not to, and stricter settings stay. TimescaleDB's limit of
 * rows that are decompressed for one insert is meant for people who do not expect that.
 */
const SESSION_SQL = `
SELECT set_config('statement_timeout', '${STATEMENT_TIMEOUT_MS}', false),
       set_config('TimeZone', 'UTC', false),
       CASE current_setting('synchronous_commit')
         WHEN 'off' THEN set_config('synchronous_commit', 'on', false)
       END,
       (SELECT set_config(name, '0', false) FROM pg_settings
        WHERE name = 'timescaledb.max_tuples_decompressed_per_dml_transaction')`;

interface InsertRow {
  readonly stored: number;
  /** Ordinals count from 1. */
  readonly unknown: readonly number[] | null;
  readonly disabled: readonly number[] | null;
  /** The type of the column at this time. */
  readonly valueType: string | null;
}

/** Array types of the parameter that carries the values. `numeric` travels as text. */
const VALUE_PARAMETERS: Readonly<Record<ValueType, string>> = {
  "double precision": "float8[]",
  real: "float4[]",
  numeric: "text[]",
  smallint: "int2[]",
  integer: "int4[]",
  bigint: "int8[]",
};

/**
 * One statement, and so one snapshot: what is counted as unknown is what was not stored. The
 * conflict clause names no columns, so that it works with any unique key and without one. Of a
 * sensor that is registered twice, which nothing may forbid, one that is enabled counts. Nothing is
 * stored in a column whose type has been changed: the server would make another value fit.
 */
function insertSql({ value }: ReadingColumns): string {
  return `
WITH reading AS MATERIALIZED (
  SELECT DISTINCT ON (sent.ordinal)
         sent.time, sent.value, sent.ordinal, sensors.id, sensors.enabled
  FROM unnest($1::timestamptz[], $2::uuid[], $3::int8[], $4::${VALUE_PARAMETERS[value]})
         WITH ORDINALITY AS sent (time, uuid, sid, value, ordinal)
  LEFT JOIN sensors ON sensors.uuid = sent.uuid AND sensors.sensor_sid = sent.sid
  ORDER BY sent.ordinal, sensors.enabled DESC NULLS LAST, sensors.id
), value AS MATERIALIZED (
  SELECT ${TYPE_NAME} AS type FROM pg_attribute AS attribute
  JOIN pg_type AS type ON type.oid = attribute.atttypid
  WHERE attribute.attrelid = to_regclass('sensor_data') AND attribute.attname = 'value'
), stored AS (
  INSERT INTO sensor_data (time, sensor_id, value)
  SELECT time, id, value${value === "numeric" ? "::numeric" : ""} FROM reading
  WHERE enabled AND (SELECT type FROM value) = '${value}'
  ON CONFLICT DO NOTHING
  RETURNING 1
)
SELECT (SELECT count(*)::int FROM stored) AS stored,
       (SELECT array_agg(ordinal::int) FROM reading WHERE id IS NULL) AS unknown,
       (SELECT array_agg(ordinal::int) FROM reading WHERE id IS NOT NULL AND enabled IS NOT TRUE)
         AS disabled,
       (SELECT type FROM value) AS "valueType"`;
}

/** What an operator can do about it. */
const HINTS: Readonly<Record<string, string>> = {
  "28000": "check DATABASE_USER and the server's pg_hba.conf",
  "28P01": "check DATABASE_USER and DATABASE_PASSWORD",
  "3D000": "check DATABASE_NAME",
  "42501": "grant SELECT, INSERT on sensor_data and SELECT on sensors",
  "25006": "the server is a standby, or the database is set to read-only",
  "53100": "free space on the disk of the database server",
  "53300": "raise max_connections of the database server, or lower DATABASE_CONNECTIONS",
  "57014": "something holds a lock, or the server is overloaded",
};

function wrapError(error: unknown, user: string): DatabaseError {
  if (error instanceof DatabaseError) return error;
  if (!(error instanceof pg.DatabaseError)) {
    return new DatabaseError(describeError(error), { cause: error });
  }
  // The server names the user, whom the configuration treats as a secret.
  const said = error.message.replaceAll(`user "${user}"`, "the user in DATABASE_USER")
    .replaceAll(`"${user}"`, "of DATABASE_USER");
  const hint = HINTS[error.code ?? ""];
  const message = hint === undefined ? said : `${said} (${hint})`;
  const { code: sqlState, constraint, column } = error;
  return new DatabaseError(message, { cause: error, sqlState, constraint, column });
}
