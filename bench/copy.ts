/**
 * COPY of the rows of the last drain: the maximum rate of the database with index and foreign key.
 */
import type { Stage } from "./stage.ts";

/** A separate table with the columns and keys of the original. */
const COPY_TABLE = "sensor_data_copy";

/**
 * Copies the rows of `sensor_data` to a file on the server and from there, in one transaction, into
 * an empty table with the same keys. No client and no network are involved.
 *
 * @returns rows per second.
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
