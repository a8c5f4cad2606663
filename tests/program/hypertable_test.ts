/**
 * What `init` and `check` request from TimescaleDB and report about it, with a plain PostgreSQL.
 * Functions and views with the names of the extension replace it and record their calls, so that it
 * can be in states that are rare with the real one. `timescale_test.ts` uses the real one.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { type LoggerEnv, loggerEnv, runLogger } from "../support/logger_process.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
import { usePostgres } from "../support/harness.ts";

const postgres = usePostgres({ settings: { fsync: "on" } });

/** Replaces the extension; `compressed` says whether the table is to be compressed. */
async function pretendTimescale(database: TestDatabase, compressed: boolean): Promise<void> {
  await database.query(`
    CREATE TABLE asked (what text);
    CREATE SCHEMA timescaledb_information;
    CREATE TABLE timescaledb_information.hypertables
      (hypertable_name name, compression_enabled boolean);
    CREATE TABLE timescaledb_information.dimensions
      (hypertable_name name, dimension_number bigint, time_interval interval);
    GRANT USAGE ON SCHEMA timescaledb_information TO PUBLIC;
    GRANT SELECT ON ALL TABLES IN SCHEMA timescaledb_information TO PUBLIC;
    CREATE FUNCTION create_hypertable(
      relation regclass, time_column name, chunk_time_interval interval,
      if_not_exists boolean, migrate_data boolean
    ) RETURNS void LANGUAGE sql AS $$
      INSERT INTO asked VALUES (format('%s %s %s', relation, time_column, chunk_time_interval));
      DELETE FROM timescaledb_information.hypertables;
      INSERT INTO timescaledb_information.hypertables VALUES ('sensor_data', ${compressed});
      DELETE FROM timescaledb_information.dimensions;
      INSERT INTO timescaledb_information.dimensions VALUES ('sensor_data', 1, chunk_time_interval)
    $$;
    CREATE FUNCTION add_compression_policy(
      hypertable regclass, compress_after interval, if_not_exists boolean
    ) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      IF ${!compressed} THEN
        RAISE feature_not_supported USING MESSAGE = 'not available under this license';
      END IF;
      INSERT INTO asked VALUES (format('%s %s', hypertable, compress_after));
    END $$;
    INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
    SELECT 99999, 'timescaledb', 10, oid, false, '2.17.0' FROM pg_namespace WHERE nspname = 'public'`);
}

/** As the superuser, who owns the tables of the tests. */
function ownerEnv(database: TestDatabase): LoggerEnv {
  const { host, port, user, password } = postgres.server.superuser(database.name);
  return {
    DATABASE_HOST: `${host}:${port}`,
    DATABASE_USER: user,
    DATABASE_PASSWORD: password,
    DATABASE_NAME: database.name,
  };
}

Deno.test("init makes a compressed hypertable if TimescaleDB is installed, also when repeated", async () => {
  const database = await postgres.createDatabase();
  await pretendTimescale(database, true);
  for (let time = 1; time <= 2; time++) {
    const { code, stdout } = await runLogger(["init"], ownerEnv(database));
    assert.equal(code, 0, stdout);
    assert.match(
      stdout,
      /^ok +The table sensor_data is a hypertable in chunks of 1 day, with compression\.$/m,
    );
  }
  const asked = await database.query<{ what: string }>(
    "SELECT DISTINCT what FROM asked ORDER BY 1",
  );
  assert.deepEqual(asked.map(({ what }) => what), ["sensor_data 7 days", "sensor_data time 1 day"]);
});

Deno.test("init reports an ordinary table without TimescaleDB", async () => {
  const database = await postgres.createDatabase();
  const { code, stdout } = await runLogger(["init"], ownerEnv(database));
  assert.equal(code, 0, stdout);
  assert.match(stdout, /^ok +The table sensor_data is an ordinary table\.$/m);
});

Deno.test("check reports hypertable and compression with the privileges of the logger", async () => {
  await using broker = await startBroker();
  const says = async (database: TestDatabase): Promise<string> =>
    (await runLogger(["check"], loggerEnv({ database, broker }))).stdout;
  const database = await postgres.createDatabase();
  assert.match(await says(database), /^ok +Table: sensor_data is an ordinary table\.$/m);
  await pretendTimescale(database, true);
  assert.match(
    await says(database),
    /^note +Table: .* an ordinary table, although TimescaleDB is installed\./m,
  );
  await runLogger(["init"], ownerEnv(database));
  assert.match(await says(database), /^ok +Table: .* hypertable in chunks of 1 day, with compr/m);
  await database.query(
    "UPDATE timescaledb_information.hypertables SET compression_enabled = false",
  );
  assert.match(await says(database), /^note +Table: .* without compression\. /m);
});
