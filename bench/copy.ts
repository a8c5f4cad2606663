/**
 * COPY of the rows of the last drain: what the database can take at most, index and foreign key
 * included.
 */
import type { Stage } from "./stage.ts";

/** A table of its own, made like the original and named like nothing else. */
const COPY_TABLE = "sensor_data_copy";

/**
 * Writes the rows of `sensor_data` to a file of the server's and reads them back, in one
 * transaction, into an empty table with the same keys. No program and no network are between.
 *
 * @returns rows a second.
 */
export async function measureCopy({ sql, postgres, progress }: Stage): Promise<number> {
  progress("Copying the same rows");
  const file = `${postgres.dataDirectory}/bench.copy`;
  await sql.query(`
    CREATE TABLE ${COPY_TABLE} (LIKE sensor_data, UNIQUE (sensor_id, time),
      FOREIGN KEY (sensor_id) REFERENCES sensors (id))`);
  try {
    await sql.query(`COPY sensor_data TO '${file}'`);
    await sql.query("CHECKPOINT");
    const startMs = performance.now();
    await sql.query(`COPY ${COPY_TABLE} FROM '${file}'`);
    const seconds = (performance.now() - startMs) / 1000;
    const [row] = await sql.query<{ rows: number }>(
      `SELECT count(*)::int AS rows FROM ${COPY_TABLE}`,
    );
    return (row?.rows ?? 0) / seconds;
  } finally {
    await sql.query(`DROP TABLE ${COPY_TABLE}`);
  }
}
