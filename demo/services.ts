/** The broker and the database of the demo; both run in this process and listen on TCP ports. */

import { PGlite } from "@electric-sql/pglite";
import { Aedes } from "aedes";
import { createServer, type Socket } from "node:net";
import type { Endpoint } from "../lib/common/endpoint.ts";
import { schemaStatements } from "../lib/database/schema.ts";
import { listen } from "./listen.ts";
import { servePGlite } from "./pglite_server.ts";
import type { Sensor } from "./sensors.ts";

const HOST = "127.0.0.1";

/** A running broker. The caller disposes it. */
export interface EmbeddedBroker extends AsyncDisposable {
  readonly endpoint: Endpoint;
}

/** Starts Aedes on a free port. It speaks MQTT 3.1.1 and keeps everything in memory. */
export async function startBroker(): Promise<EmbeddedBroker> {
  const aedes = await Aedes.createBroker();
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    aedes.handle(socket);
  });
  const port = await listen(server, HOST);
  return {
    endpoint: { host: HOST, port },
    async [Symbol.asyncDispose](): Promise<void> {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      await new Promise<void>((resolve) => aedes.close(() => resolve()));
      sockets.forEach((socket) => socket.destroy());
      await closed;
    },
  };
}

/** The state of a sensor in the database. */
export interface SensorRow {
  readonly uuid: string;
  readonly sid: number;
  readonly label: string | null;
  readonly rows: number;
  /** Null before the first reading. */
  readonly value: number | null;
  /** Time since the last reading; null before the first one. */
  readonly ageSeconds: number | null;
}

/** A running database. The caller disposes it. */
export interface EmbeddedDatabase extends AsyncDisposable {
  readonly endpoint: Endpoint;
  readonly name: string;
  /** A user without a password. */
  readonly user: string;
  /** Name and version of the server. */
  readonly version: string;
  readSensors(): Promise<SensorRow[]>;
  countRows(): Promise<number>;
}

/** Starts PGlite in memory on a free port, creates the tables and registers the sensors. */
export async function startDatabase(sensors: readonly Sensor[]): Promise<EmbeddedDatabase> {
  const db = await PGlite.create();
  for (const statement of schemaStatements({ timescale: false })) await db.exec(statement);
  for (const { uuid, sid, label } of sensors) {
    await db.query(REGISTER_SQL, [uuid, sid, label]);
  }
  const [server] = (await db.query<Record<"name" | "user" | "version", string>>(SERVER_SQL)).rows;
  const { port, exclusively, [Symbol.asyncDispose]: stopServing } = await servePGlite(db, HOST);
  const query = async <Row>(sql: string): Promise<Row[]> =>
    (await exclusively(() => db.query<Row>(sql))).rows;
  return {
    endpoint: { host: HOST, port },
    name: server?.name ?? "",
    user: server?.user ?? "",
    version: server?.version ?? "",
    readSensors: () => query<SensorRow>(SENSORS_SQL),
    countRows: async () => (await query<{ rows: number }>(COUNT_SQL))[0]?.rows ?? 0,
    async [Symbol.asyncDispose](): Promise<void> {
      await stopServing();
      await db.close();
    },
  };
}

const REGISTER_SQL = "INSERT INTO sensors (uuid, sensor_sid, label) VALUES ($1, $2, $3)";

const SERVER_SQL = `
SELECT current_database() AS name, current_user AS user,
       'PostgreSQL ' || current_setting('server_version') AS version`;

const COUNT_SQL = "SELECT count(*)::int AS rows FROM sensor_data";

const SENSORS_SQL = `
SELECT uuid, sensor_sid AS sid, label, last.value,
       extract(epoch FROM clock_timestamp() - last.time)::float8 AS "ageSeconds",
       (SELECT count(*)::int FROM sensor_data WHERE sensor_id = sensors.id) AS rows
FROM sensors
LEFT JOIN LATERAL (
  SELECT time, value FROM sensor_data WHERE sensor_id = sensors.id ORDER BY time DESC LIMIT 1
) AS last ON true
ORDER BY sensors.id`;
