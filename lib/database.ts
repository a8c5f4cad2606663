/**
 * One connection to the database: the catalogue, the one statement that stores a batch, and what
 * went wrong. The only module that knows the database driver.
 */

import { once } from "node:events";
import { Socket } from "node:net";
// @ts-types="@types/pg"
import pg from "pg";
import type { DatabaseConfig, SslMode } from "./config.ts";
import { encodeBatch } from "./batch_encoding.ts";
import type { Reading, ReadingColumns, SidType, ValueType } from "./reading.ts";
import { describeError } from "./retry.ts";
import { describeTlsProblem, explainTlsProblem } from "./tls_problems.ts";

const CONNECT_TIMEOUT_MS = 10_000;

/** The server gives a statement up after this time, … */
const STATEMENT_TIMEOUT_MS = 30_000;

/** … and where it does not answer even then, the connection is given up. */
const QUERY_TIMEOUT_MS = 35_000;

/** Time for a polite goodbye. */
const CLOSE_TIMEOUT_MS = 1_000;

/** What the database said or failed to say. */
export class DatabaseError extends Error {
  override readonly name = "DatabaseError";
  /** PostgreSQL manual, appendix A; undefined where the connection failed. */
  readonly sqlState: string | undefined;

  constructor(message: string, options: { cause: unknown; sqlState?: string | undefined }) {
    super(message, { cause: options.cause });
    this.sqlState = options.sqlState;
  }

  /**
   * Whether the rows are to blame (data exception, integrity constraint violation, a view's or a
   * trigger's refusal). Everything else is the state of the server and is worth another attempt.
   */
  get isContent(): boolean {
    return /^(22|23|44|P0001)/.test(this.sqlState ?? "");
  }

  /**
   * Whether fewer rows at a time might do (program limit exceeded, and TimescaleDB's limit of rows
   * that are decompressed for an insert into compressed chunks).
   */
  get isTooMuch(): boolean {
    return /^(53400|54)/.test(this.sqlState ?? "");
  }

  /** Whether the statement took too long. */
  get isTimeout(): boolean {
    return this.sqlState === "57014";
  }
}

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

/** What the catalogue says of the two tables. */
export interface Catalogue extends ReadingColumns {
  /** Whether (sensor_id, time) is unique, without which repeated readings are stored twice. */
  readonly uniqueKey: boolean;
}

/** An open connection. Whoever opened it closes it. */
export class DatabaseConnection {
  readonly #client: pg.Client;
  readonly #socket: () => Socket | undefined;
  readonly #lost = new AbortController();
  #catalogue: Catalogue | undefined;

  /**
   * Connects and sets the session up. Aborting `signal` gives the attempt up.
   *
   * @throws {DatabaseError} when the database cannot be reached or refuses.
   */
  static async open(config: DatabaseConfig, signal: AbortSignal): Promise<DatabaseConnection> {
    try {
      return await connect(config, { sslMode: config.sslMode, signal });
    } catch (error) {
      if (config.sslMode === "prefer" && isRefusedForTls(error)) {
        return await connect(config, { sslMode: "disable", signal });
      }
      throw error;
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
    return this.#catalogue;
  }

  /**
   * Stores a batch in a transaction of its own; resolves when that has committed.
   *
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
    const { stored = 0, unknown, disabled } = rows[0] ?? {};
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
    await connection.close();
    throw wrapError(await explain(error, { config, sslMode }), user);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", cut);
  }
}

/**
 * libpq's meaning of the modes (PostgreSQL manual, section "SSL Support"): `prefer` and `require`
 * encrypt without checking the certificate, `verify-ca` checks who signed it, `verify-full` also
 * for which host. As there, `require` with a file of certificate authorities is `verify-ca`.
 */
function tlsOptions(
  mode: SslMode,
  { endpoint: { host }, ca, cert, key }: DatabaseConfig,
): pg.ClientConfig["ssl"] {
  if (mode === "disable") return false;
  const client = { ...(cert !== undefined && { cert }), ...(key !== undefined && { key }) };
  if (mode === "prefer" || (mode === "require" && ca === undefined)) {
    return { rejectUnauthorized: false, ...client };
  }
  return {
    rejectUnauthorized: true,
    ...(ca !== undefined && { ca }),
    ...client,
    ...(mode === "verify-full" ? { host } : { checkServerIdentity: () => undefined }),
  };
}

/** Finds out what is wrong with the certificate of the server, if that is why it failed. */
async function explain(
  error: unknown,
  { config, sslMode }: { readonly config: DatabaseConfig; readonly sslMode: SslMode },
): Promise<unknown> {
  if (sslMode === "disable" || error instanceof pg.DatabaseError) return error;
  // Looked for where `prefer` goes on without.
  if (error instanceof Error && NO_TLS.test(error.message)) return error;
  const words = await explainTlsProblem(error, { ...config.endpoint, prepare: requestTls });
  return words === undefined ? error : new Error(words, { cause: error });
}

const NO_TLS = /not support SSL/;

/** Whether it may work without TLS: the server has none, or does not want it of this client. */
function isRefusedForTls(error: unknown): boolean {
  if (!(error instanceof DatabaseError)) return false;
  if (error.sqlState === INVALID_AUTHORIZATION) return true;
  return describeTlsProblem(error.cause) !== undefined;
}

/** No line of pg_hba.conf fits, which goes by whether the connection is encrypted. */
const INVALID_AUTHORIZATION = "28000";

/** PostgreSQL manual, section "SSL Session Encryption". */
const SSL_REQUEST = Uint8Array.of(0, 0, 0, 8, 4, 210, 22, 47);

async function requestTls(socket: Socket): Promise<void> {
  socket.write(SSL_REQUEST);
  const [answer] = await once(socket, "data");
  if (String(answer) !== "S") throw new Error("no TLS");
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

/** Every column of the two tables, domains resolved, and whether a unique index fits. */
const CATALOGUE_SQL = `
SELECT relation.name AS table,
       attribute.attname AS column,
       format_type(coalesce(nullif(type.typbasetype, 0), type.oid), NULL) AS type,
       EXISTS (
         SELECT FROM pg_index
         WHERE indrelid = relation.oid AND indisunique AND indisvalid
           AND indpred IS NULL AND indexprs IS NULL AND indnkeyatts = 2
           AND ARRAY(
             SELECT key.attname::text FROM pg_attribute AS key
             WHERE key.attrelid = indrelid AND key.attnum = ANY ((indkey::int2[])[0:1])
             ORDER BY 1
           ) = relation.key
       ) AS "uniqueKey"
FROM (VALUES ('sensors', to_regclass('sensors'), ARRAY['sensor_sid', 'uuid']),
             ('sensor_data', to_regclass('sensor_data'), ARRAY['sensor_id', 'time']))
       AS relation (name, oid, key)
LEFT JOIN pg_attribute AS attribute
       ON attribute.attrelid = relation.oid AND attribute.attnum > 0 AND NOT attribute.attisdropped
LEFT JOIN pg_type AS type ON type.oid = attribute.atttypid`;

/** A row of `CATALOGUE_SQL`; column and type are null where the table does not exist. */
export interface CatalogueRow {
  readonly table: string;
  readonly column: string | null;
  readonly type: string | null;
  readonly uniqueKey: boolean;
}

/** The columns that the logger uses, with the types that it can use. */
const COLUMN_TYPES: Readonly<Record<string, readonly string[]>> = {
  "sensors.id": ["smallint", "integer", "bigint"],
  "sensors.uuid": ["uuid"],
  "sensors.sensor_sid": ["smallint", "integer", "bigint"],
  "sensors.enabled": ["boolean"],
  "sensor_data.time": ["timestamp with time zone", "timestamp without time zone"],
  "sensor_data.sensor_id": ["smallint", "integer", "bigint"],
  "sensor_data.value": ["double precision", "real", "numeric", "smallint", "integer", "bigint"],
};

function toCatalogue(rows: readonly CatalogueRow[]): Catalogue {
  const types = new Map(rows.map(({ table, column, type }) => [`${table}.${column}`, type]));
  for (const { table, column } of rows) {
    if (column === null) {
      throw new DatabaseError(
        `the table '${table}' does not exist, or not where this user finds it ` +
          "('kraken-logger init' creates the tables; they must be in the search path, in a " +
          "schema with USAGE for the user)",
        { cause: undefined },
      );
    }
  }
  for (const [name, allowed] of Object.entries(COLUMN_TYPES)) {
    const type = types.get(name);
    if (type === undefined || type === null || !allowed.includes(type)) {
      throw new DatabaseError(
        `the column ${name} ${type ? `has the type ${type}` : "does not exist"}, ` +
          `the logger needs it as ${allowed.join(" or ")}`,
        { cause: undefined },
      );
    }
  }
  return {
    value: types.get("sensor_data.value") as ValueType,
    sid: types.get("sensors.sensor_sid") as SidType,
    uniqueKey: rows.some(({ table, uniqueKey }) => table === "sensor_data" && uniqueKey),
  };
}

interface InsertRow {
  readonly stored: number;
  /** Ordinals count from 1. */
  readonly unknown: readonly number[] | null;
  readonly disabled: readonly number[] | null;
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
 * sensor that is registered twice, which nothing may forbid, one that is enabled counts.
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
), stored AS (
  INSERT INTO sensor_data (time, sensor_id, value)
  SELECT time, id, value${value === "numeric" ? "::numeric" : ""} FROM reading WHERE enabled
  ON CONFLICT DO NOTHING
  RETURNING 1
)
SELECT (SELECT count(*)::int FROM stored) AS stored,
       (SELECT array_agg(ordinal::int) FROM reading WHERE id IS NULL) AS unknown,
       (SELECT array_agg(ordinal::int) FROM reading WHERE id IS NOT NULL AND enabled IS NOT TRUE)
         AS disabled`;
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
  return new DatabaseError(message, { cause: error, sqlState: error.code });
}
