/**
 * Whether `sensor_data` is a hypertable, read from views of TimescaleDB that every role may read.
 */

import type { DatabaseConnection } from "./connection.ts";

/** The state of the extension and of the table. */
export interface Hypertable {
  /** The version of the extension; null if it is not installed in this database. */
  readonly version: string | null;
  /** Whether the extension is available on the server. */
  readonly available: boolean;
  readonly isHypertable: boolean;
  readonly isCompressed: boolean;
  /** As PostgreSQL formats an interval; null if `sensor_data` is not a hypertable. */
  readonly chunkInterval: string | null;
}

/**
 * Queries the state. The connection stays open.
 *
 * @throws {DatabaseError} when a query fails.
 */
export async function readHypertable(connection: DatabaseConnection): Promise<Hypertable> {
  const [extension] = await connection.query<{ version: string | null; available: boolean }>(
    `SELECT (SELECT extversion::text FROM pg_extension WHERE extname = 'timescaledb') AS version,
            EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') AS available`,
  );
  const { version = null, available = false } = extension ?? {};
  const none = { isHypertable: false, isCompressed: false, chunkInterval: null };
  if (version === null) return { version, available, ...none };
  const [table] = await connection.query<{ isCompressed: boolean; chunkInterval: string | null }>(
    `SELECT compression_enabled AS "isCompressed",
            (SELECT time_interval::text FROM timescaledb_information.dimensions
             WHERE hypertable_name = 'sensor_data' AND dimension_number = 1) AS "chunkInterval"
     FROM timescaledb_information.hypertables WHERE hypertable_name = 'sensor_data'`,
  );
  return { version, available, ...(table ? { isHypertable: true, ...table } : none) };
}

/** The state as a sentence without its full stop. */
export function describeHypertable(
  { isHypertable, isCompressed, chunkInterval }: Hypertable,
): string {
  if (!isHypertable) return "sensor_data is an ordinary table";
  const compression = isCompressed ? "with compression" : "without compression";
  return `sensor_data is a hypertable in chunks of ${chunkInterval}, ${compression}`;
}
