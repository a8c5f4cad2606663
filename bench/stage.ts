/**
 * The services of the benchmark: one PostgreSQL for all measurements, and a new Mosquitto for each
 * backlog.
 */
import { type MosquittoBroker, startMosquitto } from "../tests/support/mosquitto.ts";
import {
  type PostgresServer,
  startPostgres,
  type TestDatabase,
} from "../tests/support/postgres.ts";
import { makeSensors } from "../tests/support/readings.ts";
import type { SqlConnection } from "../tests/support/sql.ts";
import { subscribe, type SubscribeOptions } from "../tests/support/subscriber.ts";
import type { BacklogJob } from "./backlog_program.ts";
import { readResult, startProgram } from "./program.ts";
import type { Scope } from "./scope.ts";
import { findChild } from "./usage.ts";

/** Sensors of the reference installation. */
export const SENSORS = 250;

/** Timeout of a single step. */
export const TIMEOUT_MS = 600_000;

/** The database server, its database, and the scope that opens all other resources. */
export interface Stage {
  readonly scope: Scope;
  readonly postgres: PostgresServer;
  readonly database: TestDatabase;
  /** A connection of the superuser, for the queries of the benchmark. */
  readonly sql: SqlConnection;
  readonly postgresPid: number;
  /** Sensors that are registered and publish. */
  readonly sensors: number;
  /** Prints the current step. */
  readonly progress: (text: string) => void;
}

/** Starts PostgreSQL with its default settings, and creates the database. */
export async function prepareStage(
  scope: Scope,
  progress: (text: string) => void,
  sensors = SENSORS,
): Promise<Stage> {
  progress("Starting PostgreSQL");
  const postgres = await scope.open(() =>
    // Records commit times, so that no polling is needed during a drain.
    startPostgres({ settings: { track_commit_timestamp: "on" } })
  );
  const database = await postgres.createDatabase({ name: "bench" });
  await database.registerSensors(makeSensors(sensors));
  await database.query("ANALYZE sensors");
  const sql = await scope.open(() => database.connect());
  const postgresPid = findChild("postgres");
  return { scope, postgres, database, sql, postgresPid, sensors, progress };
}

/** Empties the table and writes a checkpoint, so that measurements do not affect each other. */
export async function clearTable({ sql }: Stage): Promise<void> {
  await sql.query("TRUNCATE sensor_data");
  await sql.query("CHECKPOINT");
}

/** Starts Mosquitto without queue limits. The caller closes it by the scope. */
export async function openBroker({ scope }: Stage): Promise<MosquittoBroker> {
  return await scope.open(() => startMosquitto({ maxInflightMessages: 0 }));
}

/** Creates a session, so that the broker queues new messages for a client that is offline. */
export async function createSession(
  broker: MosquittoBroker,
  options: Pick<SubscribeOptions, "clientId" | "qos" | "protocolVersion">,
): Promise<void> {
  await using _ = await subscribe(broker, {
    filter: "sensors/#",
    protocolVersion: 5,
    ...options,
  });
}

/** Publishes a backlog; resolves when the broker has acknowledged it. */
export async function publishBacklog(
  { scope, sensors, progress }: Stage,
  broker: MosquittoBroker,
  { qos, count }: Pick<BacklogJob, "qos" | "count">,
): Promise<void> {
  progress(`Publishing ${count} messages of QoS ${qos}`);
  const { host, port } = broker;
  const job: BacklogJob = { host, port, qos, count, sensors };
  const publisher = await scope.open(() => startProgram("backlog_program", job));
  await readResult(publisher, TIMEOUT_MS);
  await scope.close(publisher);
}
