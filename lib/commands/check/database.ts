/** What `check` examines about the database. */

import { describeError } from "../../common/error_text.ts";
import type { Report } from "./findings.ts";
import type { DatabaseConfig } from "../../config/config.ts";
import { describeEndpoint } from "../../common/endpoint.ts";
import type { TableColumns } from "../../database/table_columns.ts";
import { DatabaseConnection } from "../../database/connection.ts";
import { describeHypertable, readHypertable } from "../../database/hypertable.ts";

/** Clocks that differ by more are not synchronised. */
const MAX_CLOCK_OFFSET_MS = 1_000;

/** Reports on connection, server, privileges and schema. Returns the columns if they are usable. */
export async function checkDatabase(
  config: DatabaseConfig,
  report: Report,
): Promise<TableColumns | undefined> {
  const subject = `Database '${config.name}' at ${describeEndpoint(config.endpoint)}`;
  let connection: DatabaseConnection | undefined;
  try {
    connection = await DatabaseConnection.open(config, new AbortController().signal);
    const encryption = connection.encrypted ? "encrypted" : "not encrypted";
    report({ level: "ok", text: `${subject}: connected, ${encryption}.` });
    await checkServer(connection, config, report);
    await checkClock(connection, report);
    const maySelectSensors = await checkPrivileges(connection, report);
    return await checkSchema(connection, { report, maySelectSensors });
  } catch (error) {
    report({ level: "problem", text: `${subject}: ${describeError(error)}.` });
    return undefined;
  } finally {
    await connection?.close();
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
  report: Report,
): Promise<void> {
  const [server] = await connection.query<ServerRow>(SERVER_SQL);
  if (server === undefined) return;
  const { version, timescale, standby, readOnly, unsafe, freeConnections } = server;
  const extension = timescale === null ? "without TimescaleDB" : `with TimescaleDB ${timescale}`;
  report({ level: "ok", text: `Server: PostgreSQL ${version} ${extension}.` });
  if (standby) {
    const text = "Server: it is a standby, which stores nothing. Set DATABASE_HOST to the primary.";
    report({ level: "problem", text });
  } else if (readOnly) {
    const text = "Server: it is read-only by default. Set default_transaction_read_only to off " +
      "for the database or the role.";
    report({ level: "problem", text });
  }
  if (unsafe) {
    const text = "Server: fsync is off, so that a power failure destroys committed readings. " +
      "Set fsync = on in postgresql.conf.";
    report({ level: "problem", text });
  }
  // The connection that counts them is one of those that the logger may use.
  if (freeConnections + 1 < config.connections) {
    const text = `Server: not enough free connections, ${freeConnections + 1} where the logger ` +
      `wants ${config.connections}. Raise max_connections, or lower DATABASE_CONNECTIONS.`;
    report({ level: "problem", text });
  }
}

async function checkClock(connection: DatabaseConnection, report: Report): Promise<void> {
  const sentMs = Date.now();
  const [row] = await connection.query<{ ms: number }>(
    "SELECT extract(epoch FROM clock_timestamp())::float8 * 1000 AS ms",
  );
  const receivedMs = Date.now();
  if (row === undefined) return;
  // Half of the way there and back belongs to the way there.
  const offsetMs = row.ms - (sentMs + receivedMs) / 2;
  const seconds = (Math.abs(offsetMs) / 1000).toFixed(3);
  report(
    Math.abs(offsetMs) <= MAX_CLOCK_OFFSET_MS
      ? { level: "ok", text: `Clock: ${seconds} s off the database server's.` }
      : {
        level: "problem",
        text:
          `Clock: the database server's is ${seconds} s ${offsetMs > 0 ? "ahead" : "behind"}. ` +
          "Synchronise both hosts (chrony, systemd-timesyncd), and those that take the readings.",
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

/** Null where the table does not exist, which the schema's examination reports. */
interface PrivilegesRow {
  readonly dataSelect: boolean | null;
  readonly dataInsert: boolean | null;
  readonly sensorsSelect: boolean | null;
  readonly more: boolean | null;
}

/** Returns whether the sensors may be looked at. */
async function checkPrivileges(connection: DatabaseConnection, report: Report): Promise<boolean> {
  const [row] = await connection.query<PrivilegesRow>(PRIVILEGES_SQL);
  if (row === undefined) return false;
  const needed: [boolean | null, string][] = [
    [row.dataSelect, "SELECT ON sensor_data"],
    [row.dataInsert, "INSERT ON sensor_data"],
    [row.sensorsSelect, "SELECT ON sensors"],
  ];
  const missing = needed.filter(([has]) => has === false).map(([, privilege]) => privilege);
  for (const privilege of missing) {
    const text = `Privileges: missing. As the owner of the tables: GRANT ${privilege} TO …;`;
    report({ level: "problem", text });
  }
  if (missing.length === 0 && needed.every(([has]) => has === true)) {
    report({ level: "ok", text: "Privileges: what the logger needs." });
  }
  if (row.more === true) {
    const text = "Privileges: the user may change and delete, which the logger never does. " +
      "A role of its own needs only SELECT, INSERT on sensor_data and SELECT on sensors.";
    report({ level: "note", text });
  }
  return row.sensorsSelect === true;
}

/** What does well without the other is told of, and what lacks half of it. */
async function checkHypertable(connection: DatabaseConnection, report: Report): Promise<void> {
  const hypertable = await readHypertable(connection);
  const text = `Table: ${describeHypertable(hypertable)}`;
  if (hypertable.version !== null && !hypertable.isHypertable) {
    report({ level: "note", text: `${text}, although TimescaleDB is there. See init.` });
  } else if (hypertable.isHypertable && !hypertable.isCompressed) {
    report({
      level: "note",
      text: `${text}: years of readings take much more space than they need. See init.`,
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
  { report, maySelectSensors }: { readonly report: Report; readonly maySelectSensors: boolean },
): Promise<TableColumns> {
  const columns = await connection.readColumns();
  const types = `sensor_data.value is ${columns.value}, sensors.sensor_sid is ${columns.sid}`;
  report({ level: "ok", text: `Schema: ${types}.` });
  report(
    columns.uniqueKey ? { level: "ok", text: "Unique key: on (sensor_id, time)." } : {
      level: "problem",
      text: "Unique key: none on (sensor_id, time), a reading that is sent twice is stored " +
        "twice. As the owner: ALTER TABLE sensor_data ADD UNIQUE (sensor_id, time);",
    },
  );
  await checkHypertable(connection, report);
  const [row] = maySelectSensors ? await connection.query<SchemaRow>(SCHEMA_SQL) : [];
  if (row === undefined) return columns;
  for (const column of row.unfilled) {
    const text =
      `Schema: the column sensor_data.${column} must be given, but the logger does not ` +
      `know it. As the owner: ALTER TABLE sensor_data ALTER COLUMN ${column} DROP NOT NULL; ` +
      "or give it a default.";
    report({ level: "problem", text });
  }
  if (row.repeated > 0) {
    const text = `Sensors: ${row.repeated} pairs of uuid and sensor_sid are registered more than ` +
      "once; their readings are stored for each. Remove the repetitions, then: " +
      "ALTER TABLE sensors ADD UNIQUE (uuid, sensor_sid);";
    report({ level: "problem", text });
  }
  report(
    row.enabled > 0
      ? { level: "ok", text: `Sensors: ${row.sensors} registered, ${row.enabled} enabled.` }
      : {
        level: "problem",
        text: `Sensors: ${row.sensors} registered, none enabled: nothing will be stored. To ` +
          "register one: INSERT INTO sensors (uuid, sensor_sid, enabled) VALUES ('…', 0, true);",
      },
  );
  return columns;
}
