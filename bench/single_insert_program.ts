/**
 * A naive logger for comparison: MQTT.js, and one INSERT per message on five connections. MQTT.js
 * acknowledges a message when it passes it to the application, so this program loses the messages
 * in memory when it is killed.
 */
import { Buffer } from "node:buffer";
import mqtt from "mqtt";
import pg from "pg";
import type { SqlTarget } from "../tests/support/sql.ts";
import { readJob } from "./program.ts";

/** The broker, its session and the database. */
export interface SingleInsertJob {
  readonly broker: { readonly host: string; readonly port: number };
  readonly clientId: string;
  readonly qos: 1 | 2;
  readonly database: SqlTarget;
}

interface Payload {
  readonly timestamp: number;
  readonly uuid: string;
  readonly sid: number;
  readonly value: number;
}

const INSERT = `
INSERT INTO sensor_data (time, sensor_id, value)
SELECT to_timestamp($1), id, $4 FROM sensors WHERE uuid = $2 AND sensor_sid = $3 AND enabled
ON CONFLICT DO NOTHING`;

async function run({ broker, clientId, qos, database }: SingleInsertJob): Promise<void> {
  const pool = new pg.Pool({ ...database, max: 5 });
  const client = mqtt.connect({
    ...broker,
    clientId,
    clean: false,
    protocolVersion: 4,
    // The other variants depend on a guess at the environment.
    timerVariant: "native",
  });
  const failed = Promise.withResolvers<never>();
  client.on("error", failed.reject);
  client.on("connect", () => client.subscribe("sensors/#", { qos }));
  client.on("message", (_topic, payload: Buffer) => {
    const { timestamp, uuid, sid, value } = JSON.parse(payload.toString()) as Payload;
    const values = [timestamp, uuid, sid, value];
    pool.query({ name: "insert", text: INSERT, values }).catch(failed.reject);
  });
  await failed.promise;
}

if (import.meta.main) await run(readJob<SingleInsertJob>());
