/**
 * What the database says when it does not do what it is asked for, and whose fault that is: the
 * row's, the server's, or nobody knows whose.
 */

/** What the database said or failed to say. */
export class DatabaseError extends Error {
  override readonly name = "DatabaseError";
  /** PostgreSQL manual, appendix A; undefined where the connection failed. */
  readonly sqlState: string | undefined;
  /** Whether the encryption failed, before anything was said over it. */
  readonly isTlsFailure: boolean;
  /** The constraint and the column that the server names. */
  readonly #constraint: string | undefined;
  readonly #column: string | undefined;

  constructor(message: string, options: DatabaseErrorOptions) {
    super(message, { cause: options.cause });
    this.sqlState = options.sqlState;
    this.isTlsFailure = options.isTlsFailure ?? false;
    this.#constraint = options.constraint;
    this.#column = options.column;
  }

  /**
   * Whether the row is to blame (data exception, integrity constraint violation, a view's or a
   * trigger's refusal), rather than the table: a missing partition is a violated check that has no
   * name, and what the logger does not fill is not the row's fault.
   */
  get isContent(): boolean {
    if (this.sqlState === CHECK_VIOLATION) return this.#constraint !== undefined;
    if (this.sqlState === NOT_NULL_VIOLATION) return INSERTED.includes(this.#column ?? "");
    return /^(22|23|44|P0001)/.test(this.sqlState ?? "");
  }

  /**
   * Whether it is the state of the connection, of the server or of the whole table, so that no other
   * row would be stored either (classes 08, 25, 28, 3D, 40, 42, 53, 55, 57 and 58). A limit that is
   * exceeded (53400) may be so by the number of rows.
   */
  get isOfServer(): boolean {
    return this.sqlState === undefined ||
      /^(08|25|28|3D|40|42|53(?!400)|55|57|58)/.test(this.sqlState);
  }

  /** Whether the statement took too long. */
  get isTimeout(): boolean {
    return this.sqlState === "57014";
  }
}

export interface DatabaseErrorOptions {
  readonly cause: unknown;
  readonly sqlState?: string | undefined;
  readonly constraint?: string | undefined;
  readonly column?: string | undefined;
  readonly isTlsFailure?: boolean;
}

const CHECK_VIOLATION = "23514";
const NOT_NULL_VIOLATION = "23502";

/** The columns of `sensor_data` that the logger fills. */
const INSERTED: readonly string[] = ["time", "sensor_id", "value"];

/** The type of a column is not the one that the readings were decoded for; nothing was stored. */
export class ColumnsChangedError extends Error {
  override readonly name = "ColumnsChangedError";

  constructor() {
    super("the columns have other types than before");
  }
}
