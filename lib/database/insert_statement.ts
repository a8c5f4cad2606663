/** The SQL statement that stores a batch. */

import type { ReadingColumns, ValueType } from "../message/reading.ts";
import { TYPE_NAME } from "./table_columns.ts";

/** The one row that the statement returns. Ordinals count the readings of the batch from 1. */
export interface InsertRow {
  readonly stored: number;
  /** Readings whose sensor is not registered; null if none. */
  readonly unknown: readonly number[] | null;
  /** Readings whose sensor is not enabled; null if none. */
  readonly disabled: readonly number[] | null;
  /** The type of the column `value` at the time of the statement. */
  readonly valueType: string | null;
}

/** The array type of the parameter with the values; `numeric` values are sent as text. */
const VALUE_PARAMETERS: Readonly<Record<ValueType, string>> = {
  "double precision": "float8[]",
  real: "float4[]",
  numeric: "text[]",
  smallint: "int2[]",
  integer: "int4[]",
  bigint: "int8[]",
};

/**
 * The statement for columns of the given types. It is a single statement and therefore sees one
 * snapshot: exactly the readings that it reports as unknown were not stored. The conflict clause
 * names no columns, so that it works with any unique key, or with none. If a sensor is registered
 * twice, an enabled registration takes precedence. If the type of the column `value` has changed,
 * nothing is stored: the server would convert the values.
 */
export function insertSql({ value }: ReadingColumns): string {
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
