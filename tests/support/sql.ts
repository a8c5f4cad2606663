/**
 * SQL for the tests. The one place of the tests that knows the PostgreSQL driver.
 */
import pg from "pg";

/** Where and as whom to connect. */
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

  /** @throws the driver's error when the server is away or refuses. */
  static async open(target: SqlTarget): Promise<SqlConnection> {
    const client = new pg.Client({ ...target, connectionTimeoutMillis: 10_000 });
    // The server may be killed while the connection idles: the next query reports that.
    client.on("error", () => {});
    try {
      await client.connect();
    } catch (error) {
      await client.end().catch(() => {
        // Never was open; the error of the connect says why.
      });
      throw error;
    }
    return new SqlConnection(client);
  }

  /**
   * Runs one statement with parameters, or several without.
   *
   * @returns the rows, of the last statement where there were several.
   * @throws the driver's error, with `code` = SQLSTATE.
   */
  async query<Row extends SqlRow = SqlRow>(
    sql: string,
    params: readonly unknown[] = [],
  ): Promise<Row[]> {
    // Without parameters the simple protocol, which alone takes several statements at once.
    const result = params.length === 0
      ? await this.#client.query<Row>(sql)
      : await this.#client.query<Row>(sql, [...params]);
    const last: unknown = Array.isArray(result) ? result.at(-1) : result;
    return (last as pg.QueryResult<Row>).rows;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.end().catch(() => {
      // The server may be gone already: then there is nothing left to close.
    });
  }
}

/**
 * Connects, runs one query as {@linkcode SqlConnection.query} does, and disconnects, so that
 * nothing stays open between two steps of a test.
 */
export async function runSql<Row extends SqlRow = SqlRow>(
  target: SqlTarget,
  sql: string,
  options: { readonly params?: readonly unknown[] } = {},
): Promise<Row[]> {
  await using connection = await SqlConnection.open(target);
  return await connection.query<Row>(sql, options.params ?? []);
}

/** Writes a name so that SQL takes it literally. */
export function quoteName(name: string): string {
  return pg.escapeIdentifier(name);
}

/** Writes a text so that SQL takes it literally. */
export function quoteText(text: string): string {
  return pg.escapeLiteral(text);
}
