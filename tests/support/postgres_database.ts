/**
 * A database like that of a laboratory: the two tables, and the logger's role with only the
 * privileges that it is documented to need.
 */
import { quoteName, quoteText, runSql, SqlConnection, type SqlRow, type SqlTarget } from "./sql.ts";

/** How {@linkcode createTestDatabase} creates a database. */
export interface DatabaseOptions {
  readonly name: string;
  /** Type of the column `sensor_data.value`; `double precision` by default. */
  readonly valueType?: string;
  /** `false` leaves out the unique key of `sensor_data`. */
  readonly uniqueKey?: boolean;
  /** Replaces the statements that create both tables. */
  readonly schemaSql?: string;
}

/** A sensor as the laboratory registers it. */
export interface Sensor {
  readonly uuid: string;
  /** 0 by default. */
  readonly sid?: number;
  /** `true` by default. */
  readonly enabled?: boolean;
  readonly label?: string;
}

/** The role that the logger connects as. It exists once in each server. */
export const LOGGER_ROLE = "kraken";
/** The password of {@linkcode LOGGER_ROLE}, with characters that need correct quoting. */
export const LOGGER_PASSWORD = "kraken's pass#word %41";

/** A database in a server that a test started. */
export class TestDatabase {
  /** Connection parameters of the logger's role. */
  readonly logger: SqlTarget;
  readonly #superuser: SqlTarget;

  /** @param superuser connection parameters of the superuser in this database. */
  constructor(superuser: SqlTarget) {
    this.#superuser = superuser;
    this.logger = { ...superuser, user: LOGGER_ROLE, password: LOGGER_PASSWORD };
  }

  get name(): string {
    return this.#superuser.database;
  }

  /** Runs SQL as superuser; see `runSql`. */
  async query<Row extends SqlRow = SqlRow>(
    sql: string,
    params: readonly unknown[] = [],
  ): Promise<Row[]> {
    return await runSql<Row>(this.#superuser, sql, { params });
  }

  /** Runs SQL with the privileges of the logger. */
  async queryAsLogger<Row extends SqlRow = SqlRow>(
    sql: string,
    params: readonly unknown[] = [],
  ): Promise<Row[]> {
    return await runSql<Row>(this.logger, sql, { params });
  }

  /** Opens a connection of the superuser, to hold a lock for instance. The caller disposes it. */
  async connect(): Promise<SqlConnection> {
    return await SqlConnection.open(this.#superuser);
  }

  /** Number of rows in `sensor_data`. */
  async countReadings(): Promise<number> {
    const [row] = await this.query<{ count: string }>("SELECT count(*) FROM sensor_data");
    return Number(row?.count);
  }

  /** Adds sensors; existing ones get the given state and label. */
  async registerSensors(sensors: readonly Sensor[]): Promise<void> {
    await this.query(
      `INSERT INTO sensors (uuid, sensor_sid, enabled, label)
       SELECT * FROM unnest($1::uuid[], $2::int[], $3::bool[], $4::text[])
       ON CONFLICT (uuid, sensor_sid)
       DO UPDATE SET enabled = excluded.enabled, label = excluded.label`,
      [
        sensors.map((sensor) => sensor.uuid),
        sensors.map((sensor) => sensor.sid ?? 0),
        sensors.map((sensor) => sensor.enabled ?? true),
        sensors.map((sensor) => sensor.label ?? null),
      ],
    );
  }

  /** Terminates all connections of the logger's role; returns their number. */
  async terminateLogger(): Promise<number> {
    const rows = await this.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE usename = $1 AND datname = current_database()`,
      [LOGGER_ROLE],
    );
    return rows.length;
  }

  /** Changes the password of the logger's role; by default back to the original one. */
  async setLoggerPassword(password: string = LOGGER_PASSWORD): Promise<void> {
    await this.query(`ALTER ROLE ${LOGGER_ROLE} PASSWORD ${quoteText(password)}`);
  }

  /** Creates an empty set of connections that take the place of the logger's. The caller disposes it. */
  takeConnections(): TakenConnections {
    return new TakenConnections(this);
  }
}

/** Idle connections that leave none for the logger. */
export class TakenConnections implements AsyncDisposable {
  readonly #database: TestDatabase;
  readonly #connections = new AsyncDisposableStack();
  #refusals = 0;

  /** Use `TestDatabase.takeConnections`. */
  constructor(database: TestDatabase) {
    this.#database = database;
  }

  /** How many of these connections the server has refused, and logged as refused. */
  get refusals(): number {
    return this.#refusals;
  }

  /**
   * Takes all connections that the server allows to ordinary roles, including those of the logger,
   * except one that the logger is just opening; the next call takes that one.
   */
  async takeAll(): Promise<void> {
    for (let found = true; found;) {
      await this.#takeFree();
      const rows = await this.#database.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE application_name = 'kraken-logger' AND datname = current_database()`,
      );
      found = rows.length > 0;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connections.disposeAsync();
  }

  async #takeFree(): Promise<void> {
    try {
      while (true) this.#connections.use(await SqlConnection.open(this.#database.logger));
    } catch (error) {
      // too_many_connections
      if ((error as { code?: string }).code !== "53300") throw error;
      this.#refusals++;
    }
  }
}

/**
 * Creates a database and, if it does not exist, the logger's role, which may read `sensors`, read and
 * insert `sensor_data`, and has no other privileges.
 *
 * @param superuser connection parameters of the superuser in any database of the server.
 */
export async function createTestDatabase(
  superuser: SqlTarget,
  options: DatabaseOptions,
): Promise<TestDatabase> {
  const name = quoteName(options.name);
  await runSql(superuser, `CREATE DATABASE ${name}`);
  const database = new TestDatabase({ ...superuser, database: options.name });
  await database.query(`
    DO $$ BEGIN
      CREATE ROLE ${LOGGER_ROLE} LOGIN PASSWORD ${quoteText(LOGGER_PASSWORD)};
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END $$;
    REVOKE ALL ON DATABASE ${name} FROM PUBLIC;
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
    GRANT CONNECT ON DATABASE ${name} TO ${LOGGER_ROLE};
    GRANT USAGE ON SCHEMA public TO ${LOGGER_ROLE};
    ${options.schemaSql ?? createTables(options)};
    GRANT SELECT ON sensors TO ${LOGGER_ROLE};
    GRANT SELECT, INSERT ON sensor_data TO ${LOGGER_ROLE};
  `);
  return database;
}

function createTables(
  { valueType = "double precision", uniqueKey = true }: DatabaseOptions,
): string {
  return `
    CREATE TABLE sensors (
      id serial PRIMARY KEY,
      uuid uuid NOT NULL,
      sensor_sid integer NOT NULL DEFAULT 0,
      enabled boolean NOT NULL DEFAULT true,
      label text,
      UNIQUE (uuid, sensor_sid)
    );
    CREATE TABLE sensor_data (
      time timestamptz NOT NULL,
      sensor_id integer NOT NULL REFERENCES sensors (id),
      value ${valueType} NOT NULL
      ${uniqueKey ? ", UNIQUE (sensor_id, time)" : ""}
    )`;
}
