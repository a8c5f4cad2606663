/**
 * The services that the benchmark measures with: one PostgreSQL for all of it, a fresh Mosquitto
 * for each backlog.
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

/** Longest time that anything here may take. */
export const TIMEOUT_MS = 600_000;

/** The database server with its database, and what opens everything else. */
export interface Stage {
  readonly scope: Scope;
  readonly postgres: PostgresServer;
  readonly database: TestDatabase;
  /** A connection of the superuser, for the benchmark's own questions. */
  readonly sql: SqlConnection;
  readonly postgresPid: number;
  /** Sensors that are registered and publish. */
  readonly sensors: number;
  /** Says what is going on. */
  readonly progress: (text: string) => void;
}

/** Starts PostgreSQL, with the settings that it comes with, and creates the database. */
export async function prepareStage(
  scope: Scope,
  progress: (text: string) => void,
  sensors = SENSORS,
): Promise<Stage> {
  progress("Starting PostgreSQL");
  const postgres = await scope.open(() =>
    // When a row was committed is to be known afterwards, without asking all the time.
    startPostgres({ settings: { track_commit_timestamp: "on" } })
  );
  const database = await postgres.createDatabase({ name: "bench" });
  await database.registerSensors(makeSensors(sensors));
  await database.query("ANALYZE sensors");
  const sql = await scope.open(() => database.connect());
  const postgresPid = findChild("postgres");
  return { scope, postgres, database, sql, postgresPid, sensors, progress };
}

/** An empty table, and nothing left to write to disk, for what is measured next. */
export async function clearTable({ sql }: Stage): Promise<void> {
  await sql.query("TRUNCATE sensor_data");
  await sql.query("CHECKPOINT");
}

/** Mosquitto without limits to its queues. The caller closes it by the scope. */
export async function openBroker({ scope }: Stage): Promise<MosquittoBroker> {
  return await scope.open(() => startMosquitto({ maxInflightMessages: 0 }));
}

/** Makes the broker keep what is published from now on for a client that is away. */
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
