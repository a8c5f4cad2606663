/** The columns of the two tables, read from the system catalog. */

import { DatabaseError } from "./errors.ts";
import type { ReadingColumns, SidType, ValueType } from "../message/reading.ts";

/** The columns that the logger uses. */
export interface TableColumns extends ReadingColumns {
  /** Whether (sensor_id, time) has a unique index; without one, duplicates are stored. */
  readonly uniqueKey: boolean;
}

/** The name of a type; for a domain, the name of its base type. */
export const TYPE_NAME = "format_type(coalesce(nullif(type.typbasetype, 0), type.oid), NULL)";

/**
 * Selects each column of both tables with its base type, and whether a unique index of exactly the
 * columns in `relation.key` exists: valid, and neither partial nor on an expression. An `int2vector`
 * such as `indkey` counts from 0.
 */
export const COLUMNS_SQL = `
SELECT relation.name AS table,
       attribute.attname AS column,
       ${TYPE_NAME} AS type,
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

/** A row of `COLUMNS_SQL`; column and type are null if the table does not exist. */
export interface ColumnsRow {
  readonly table: string;
  readonly column: string | null;
  readonly type: string | null;
  readonly uniqueKey: boolean;
}

/** The types that the logger supports, by column. */
const COLUMN_TYPES: Readonly<Record<string, readonly string[]>> = {
  "sensors.id": ["smallint", "integer", "bigint"],
  "sensors.uuid": ["uuid"],
  "sensors.sensor_sid": ["smallint", "integer", "bigint"],
  "sensors.enabled": ["boolean"],
  "sensor_data.time": ["timestamp with time zone", "timestamp without time zone"],
  "sensor_data.sensor_id": ["smallint", "integer", "bigint"],
  "sensor_data.value": ["double precision", "real", "numeric", "smallint", "integer", "bigint"],
};

/**
 * Converts the rows of `COLUMNS_SQL`.
 *
 * @throws {DatabaseError} when a table or column is missing, or a column has an unsupported type.
 */
export function toTableColumns(rows: readonly ColumnsRow[]): TableColumns {
  const types = new Map(rows.map(({ table, column, type }) => [`${table}.${column}`, type]));
  for (const { table, column } of rows) {
    if (column === null) {
      throw new DatabaseError(
        `the table '${table}' does not exist, or is not visible to this user ` +
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
          `the logger requires ${allowed.join(" or ")}`,
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
