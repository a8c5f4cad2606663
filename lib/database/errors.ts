/** Errors of the database, and whose fault they are: the row's, the server's, or undecided. */

/** A statement or connection failed; the message is the server's, with a hint. */
export class DatabaseError extends Error {
  override readonly name = "DatabaseError";
  /** PostgreSQL manual, appendix A; undefined where the connection failed. */
  readonly sqlState: string | undefined;
  /** Whether the encryption failed, before any message was exchanged over it. */
  readonly isTlsFailure: boolean;
  /** The constraint and the column that the server named. */
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
   * Whether the row is at fault (data exception, integrity constraint violation, refusal by a view
   * or a trigger) and not the table: a missing partition is a violated check without a name, and a
   * column that the logger does not fill is not the row's fault.
   */
  get isContent(): boolean {
    if (this.sqlState === CHECK_VIOLATION) return this.#constraint !== undefined;
    if (this.sqlState === NOT_NULL_VIOLATION) return INSERTED.includes(this.#column ?? "");
    return /^(22|23|44|P0001)/.test(this.sqlState ?? "");
  }

  /**
   * Whether the connection, the server or the whole table is at fault, so that no other row would be
   * stored either (classes 08, 25, 28, 3D, 40, 42, 53, 55, 57 and 58). An exceeded limit (53400) may
   * be caused by the number of rows.
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

/** A column no longer has the type that the readings were decoded for; nothing was stored. */
export class ColumnsChangedError extends Error {
  override readonly name = "ColumnsChangedError";

  constructor() {
    super("the types of the columns have changed");
  }
}
