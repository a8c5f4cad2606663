/** The part of `check` about the database. */

import { describeError } from "../../common/error_text.ts";
import { formatCount } from "../../common/text.ts";
import type { DatabaseConfig } from "../../config/database.ts";
import type { ReportFinding } from "./findings.ts";
import { describeEndpoint } from "../../common/endpoint.ts";
import type { TableColumns } from "../../database/table_columns.ts";
import { DatabaseConnection } from "../../database/connection.ts";
import { describeHypertable, readHypertable } from "../../database/hypertable.ts";

/** Two clocks that differ by more are not synchronized. */
const MAX_CLOCK_OFFSET_MS = 1_000;

/**
 * Reports on connection, server, clock, privileges and schema. Returns the columns of the
 * tables; undefined if they cannot be read or have unusable types.
 */
export async function checkDatabase(
  config: DatabaseConfig,
  report: ReportFinding,
): Promise<TableColumns | undefined> {
  const subject = `Database '${config.name}' at ${describeEndpoint(config.endpoint)}`;
  try {
    await using connection = await DatabaseConnection.open(config);
    const encryption = connection.encrypted ? "encrypted" : "not encrypted";
    report({ level: "ok", text: `${subject}: connected, ${encryption}.` });
    await checkServer(connection, config, report);
    await checkClock(connection, report);
    const maySelectSensors = await checkPrivileges(connection, report);
    return await checkSchema(connection, { report, maySelectSensors });
  } catch (error) {
    report({ level: "problem", text: `${subject}: ${describeError(error)}.` });
    return undefined;
  }
}

const SERVER_SQL = `
SELECT current_setting('server_version') AS version,
       (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS timescale,
       pg_is_in_recovery() AS standby,
       current_setting('default_transaction_read_only') = 'on' AS "readOnly",
       current_setting('fsync') = 'off' AS "unsafe",
       current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int
         - (SELECT count(*)::int FROM pg_stat_activity
            WHERE datid IS NOT NULL AND usesysid IS NOT NULL)
         AS "freeConnections"`;

interface ServerRow {
  readonly version: string;
  readonly timescale: string | null;
  readonly standby: boolean;
  readonly readOnly: boolean;
  readonly unsafe: boolean;
  readonly freeConnections: number;
}

async function checkServer(
  connection: DatabaseConnection,
  config: DatabaseConfig,
  report: ReportFinding,
): Promise<void> {
  const [server] = await connection.query<ServerRow>(SERVER_SQL);
  if (server === undefined) return;
  const { version, timescale, standby, readOnly, unsafe, freeConnections } = server;
  const extension = timescale === null ? "without TimescaleDB" : `with TimescaleDB ${timescale}`;
  report({ level: "ok", text: `Server: PostgreSQL ${version} ${extension}.` });
  if (standby) {
    const text =
      "Server: it is a standby, which accepts no writes. Set DATABASE_HOST to the primary.";
    report({ level: "problem", text });
  } else if (readOnly) {
    const text =
      "Server: transactions are read-only by default. Set default_transaction_read_only to off " +
      "for the database or the role.";
    report({ level: "problem", text });
  }
  if (unsafe) {
    const text = "Server: fsync is off. A power failure can destroy committed readings. " +
      "Set fsync = on in postgresql.conf.";
    report({ level: "problem", text });
  }
  // This connection is closed before the logger connects, so it counts as free.
  if (freeConnections + 1 < config.connections) {
    const text = `Server: ${freeConnections + 1} free connections, but DATABASE_CONNECTIONS is ` +
      `${config.connections}. Raise max_connections, or lower DATABASE_CONNECTIONS.`;
    report({ level: "problem", text });
  }
}

async function checkClock(connection: DatabaseConnection, report: ReportFinding): Promise<void> {
  const sentMs = Date.now();
  const [row] = await connection.query<{ ms: number }>(
    "SELECT extract(epoch FROM clock_timestamp())::float8 * 1000 AS ms",
  );
  const receivedMs = Date.now();
  if (row === undefined) return;
  // The delay of the query is assumed to be half of the round trip.
  const offsetMs = row.ms - (sentMs + receivedMs) / 2;
  const seconds = (Math.abs(offsetMs) / 1000).toFixed(3);
  report(
    Math.abs(offsetMs) <= MAX_CLOCK_OFFSET_MS
      ? { level: "ok", text: `Clock: differs by ${seconds} s from that of the database server.` }
      : {
        level: "problem",
        text: `Clock: the clock of the database server is ${seconds} s ` +
          `${offsetMs > 0 ? "ahead" : "behind"}. Synchronize both hosts, and the hosts that ` +
          "publish the readings (chrony, systemd-timesyncd).",
      },
  );
}

const PRIVILEGES_SQL = `
SELECT has_table_privilege(to_regclass('sensor_data'), 'SELECT') AS "dataSelect",
       has_table_privilege(to_regclass('sensor_data'), 'INSERT') AS "dataInsert",
       has_table_privilege(to_regclass('sensors'), 'SELECT') AS "sensorsSelect",
       has_table_privilege(to_regclass('sensor_data'), 'UPDATE, DELETE, TRUNCATE')
         OR has_table_privilege(to_regclass('sensors'), 'INSERT, UPDATE, DELETE, TRUNCATE')
         AS more`;

/** Null if the table does not exist, which `checkSchema` reports. */
interface PrivilegesRow {
  readonly dataSelect: boolean | null;
  readonly dataInsert: boolean | null;
  readonly sensorsSelect: boolean | null;
  readonly more: boolean | null;
}

/** Returns whether the role may read the table `sensors`. */
async function checkPrivileges(
  connection: DatabaseConnection,
  report: ReportFinding,
): Promise<boolean> {
  const [row] = await connection.query<PrivilegesRow>(PRIVILEGES_SQL);
  if (row === undefined) return false;
  const needed: [boolean | null, string][] = [
    [row.dataSelect, "SELECT ON sensor_data"],
    [row.dataInsert, "INSERT ON sensor_data"],
    [row.sensorsSelect, "SELECT ON sensors"],
  ];
  const missing = needed.filter(([has]) => has === false).map(([, privilege]) => privilege);
  for (const privilege of missing) {
    const text = `Privileges: ${privilege} is missing. As the owner of the tables, run: ` +
      `GRANT ${privilege} TO …;`;
    report({ level: "problem", text });
  }
  if (missing.length === 0 && needed.every(([has]) => has === true)) {
    report({ level: "ok", text: "Privileges: complete." });
  }
  if (row.more === true) {
    const text = "Privileges: the role may also change and delete rows, which the logger never " +
      "does. A separate role needs only SELECT, INSERT on sensor_data and SELECT on sensors.";
    report({ level: "note", text });
  }
  return row.sensorsSelect === true;
}

/** Reports a plain table although TimescaleDB is installed, and a hypertable without compression. */
async function checkHypertable(
  connection: DatabaseConnection,
  report: ReportFinding,
): Promise<void> {
  const hypertable = await readHypertable(connection);
  const text = `Table: ${describeHypertable(hypertable)}`;
  if (hypertable.version !== null && !hypertable.isHypertable) {
    report({
      level: "note",
      text: `${text}, although TimescaleDB is installed. To convert it, run 'init' as its owner.`,
    });
  } else if (hypertable.isHypertable && !hypertable.isCompressed) {
    report({
      level: "note",
      text: `${text}. Compression saves most of the disk space. To enable it, run 'init' as the ` +
        "owner of the table.",
    });
  } else {
    report({ level: "ok", text: `${text}.` });
  }
}

const SCHEMA_SQL = `
SELECT (SELECT count(*)::int FROM sensors) AS sensors,
       (SELECT count(*)::int FROM sensors WHERE enabled) AS enabled,
       (SELECT count(*)::int FROM (
          SELECT FROM sensors GROUP BY uuid, sensor_sid HAVING count(*) > 1
        ) AS repeated) AS repeated,
       ARRAY(SELECT attname::text FROM pg_attribute
             WHERE attrelid = to_regclass('sensor_data') AND attnum > 0 AND NOT attisdropped
               AND attnotnull AND NOT atthasdef AND attidentity = ''
               AND attname NOT IN ('time', 'sensor_id', 'value')) AS unfilled`;

interface SchemaRow {
  readonly sensors: number;
  readonly enabled: number;
  readonly repeated: number;
  readonly unfilled: readonly string[];
}

async function checkSchema(
  connection: DatabaseConnection,
  { report, maySelectSensors }: {
    readonly report: ReportFinding;
    readonly maySelectSensors: boolean;
  },
): Promise<TableColumns> {
  const columns = await connection.readColumns();
  const types = `sensor_data.value is ${columns.value}, sensors.sensor_sid is ${columns.sid}`;
  report({ level: "ok", text: `Schema: ${types}.` });
  report(
    columns.uniqueKey ? { level: "ok", text: "Unique key: on (sensor_id, time)." } : {
      level: "problem",
      text: "Unique key: none on (sensor_id, time). A reading that is delivered twice is stored " +
        "twice. As the owner, run: ALTER TABLE sensor_data ADD UNIQUE (sensor_id, time);",
    },
  );
  await checkHypertable(connection, report);
  const [row] = maySelectSensors ? await connection.query<SchemaRow>(SCHEMA_SQL) : [];
  if (row === undefined) return columns;
  for (const column of row.unfilled) {
    const text =
      `Schema: the column sensor_data.${column} is NOT NULL without a default, and the logger ` +
      "does not fill it, so every insert fails. Give it a default, or as the owner, run: " +
      `ALTER TABLE sensor_data ALTER COLUMN ${column} DROP NOT NULL;`;
    report({ level: "problem", text });
  }
  if (row.repeated > 0) {
    const text =
      `Sensors: ${formatCount(row.repeated, "pair")} of uuid and sensor_sid registered more ` +
      "than once; their readings are stored once for each entry. Remove the duplicates, then run: " +
      "ALTER TABLE sensors ADD UNIQUE (uuid, sensor_sid);";
    report({ level: "problem", text });
  }
  report(
    row.enabled > 0
      ? { level: "ok", text: `Sensors: ${row.sensors} registered, ${row.enabled} enabled.` }
      : {
        level: "problem",
        text: `Sensors: ${row.sensors} registered, none enabled. Nothing will be stored. To ` +
          "register one, run: INSERT INTO sensors (uuid, sensor_sid, enabled) VALUES ('…', 0, true);",
      },
  );
  return columns;
}
