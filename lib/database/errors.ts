/** Errors of the database, classified by cause: the content of a row, the server, or unknown. */

/**
 * A statement or a connection failed. The message is the server's, with a hint for the operator.
 */
export class DatabaseError extends Error {
  override readonly name = "DatabaseError";
  /** The error code (PostgreSQL manual, appendix A); undefined if the connection failed. */
  readonly sqlState: string | undefined;
  /** Whether TLS failed before any message was exchanged over it. */
  readonly isTlsFailure: boolean;
  /** The constraint and the column that the server named; undefined if it named none. */
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
   * Whether the content of a row caused the error: a data exception, a violated constraint, or a
   * refusal by a view or a trigger. Two violations are caused by the table instead: a missing
   * partition (a check without a name) and a null in a column that the logger does not fill.
   */
  get isContent(): boolean {
    if (this.sqlState === CHECK_VIOLATION) return this.#constraint !== undefined;
    if (this.sqlState === NOT_NULL_VIOLATION) return INSERTED.includes(this.#column ?? "");
    return /^(22|23|44|P0001)/.test(this.sqlState ?? "");
  }

  /**
   * Whether the connection, the server or the table caused the error, so that no other row would be
   * stored either (classes 08, 25, 28, 3D, 40, 42, 53, 55, 57 and 58). An exceeded limit (53400) is
   * excluded: the number of rows may have caused it.
   */
  get isOfServer(): boolean {
    return this.sqlState === undefined ||
      /^(08|25|28|3D|40|42|53(?!400)|55|57|58)/.test(this.sqlState);
  }

  /** Whether the statement was canceled because it took too long. */
  get isTimeout(): boolean {
    return this.sqlState === "57014";
  }
}

/** The members of a {@linkcode DatabaseError}. */
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

/** A column has another type than the readings were decoded for. Nothing was stored. */
export class ColumnsChangedError extends Error {
  override readonly name = "ColumnsChangedError";

  constructor() {
    super("the types of the columns have changed");
  }
}
