/** What TimescaleDB makes of `sensor_data`, by its own views, which everybody may read. */

import type { DatabaseConnection } from "./connection.ts";

/** The state of the extension and of the table. */
export interface Hypertable {
  /** Of the extension in this database; null where it is not there. */
  readonly version: string | null;
  /** Whether the server could install it. */
  readonly available: boolean;
  readonly isHypertable: boolean;
  readonly isCompressed: boolean;
  /** As PostgreSQL writes an interval; null where there are no chunks. */
  readonly chunkInterval: string | null;
}

/**
 * Asks the server.
 *
 * @throws {DatabaseError}
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

/** In a sentence, without its full stop. */
export function describeHypertable(
  { isHypertable, isCompressed, chunkInterval }: Hypertable,
): string {
  if (!isHypertable) return "sensor_data is an ordinary table";
  const compression = isCompressed ? "with compression" : "without compression";
  return `sensor_data is a hypertable in chunks of ${chunkInterval}, ${compression}`;
}
