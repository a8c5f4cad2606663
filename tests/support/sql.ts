/**
 * SQL for the tests. The only module of the tests that imports the PostgreSQL driver.
 */
import pg from "pg";

/** The server and the user of a connection. */
export interface SqlTarget {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
}

/** A row as the driver returns it: bigint and numeric as text, timestamptz as `Date`. */
export type SqlRow = Record<string, unknown>;

/** A connection that is kept, to hold a lock or a transaction. The caller disposes it. */
export class SqlConnection implements AsyncDisposable {
  readonly #client: pg.Client;

  private constructor(client: pg.Client) {
    this.#client = client;
  }

  /** @throws the driver's error when the server is unavailable or refuses the connection. */
  static async open(target: SqlTarget): Promise<SqlConnection> {
    const client = new pg.Client({ ...target, connectionTimeoutMillis: 10_000 });
    // The server may be killed while the connection is idle: the next query reports that.
    client.on("error", () => {});
    try {
      await client.connect();
    } catch (error) {
      await client.end().catch(() => {
        // The connection was never open; the error of `connect` says why.
      });
      throw error;
    }
    return new SqlConnection(client);
  }

  /**
   * Runs one statement with parameters, or several without.
   *
   * @returns the rows of the last statement.
   * @throws the driver's error, with `code` = SQLSTATE.
   */
  async query<Row extends SqlRow = SqlRow>(
    sql: string,
    params: readonly unknown[] = [],
  ): Promise<Row[]> {
    // Without parameters, the driver uses the simple protocol, which allows several statements.
    const result = params.length === 0
      ? await this.#client.query<Row>(sql)
      : await this.#client.query<Row>(sql, [...params]);
    const last: unknown = Array.isArray(result) ? result.at(-1) : result;
    return (last as pg.QueryResult<Row>).rows;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.end().catch(() => {
      // The server may have closed the connection already.
    });
  }
}

/**
 * Connects, runs one query as {@linkcode SqlConnection.query} does, and disconnects, so that
 * no connection stays open between two steps of a test.
 */
export async function runSql<Row extends SqlRow = SqlRow>(
  target: SqlTarget,
  sql: string,
  options: { readonly params?: readonly unknown[] } = {},
): Promise<Row[]> {
  await using connection = await SqlConnection.open(target);
  return await connection.query<Row>(sql, options.params ?? []);
}

/** Quotes a name for SQL. */
export function quoteName(name: string): string {
  return pg.escapeIdentifier(name);
}

/** Quotes a text for SQL. */
export function quoteText(text: string): string {
  return pg.escapeLiteral(text);
}
