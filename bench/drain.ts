/**
 * Measures the rate and the cost of draining a backlog: by the logger, by a receiver that only
 * acknowledges, and by a logger with one INSERT per message.
 */
import { loggerEnv, type LoggerProcess, startLogger } from "../tests/support/logger_process.ts";
import type { MosquittoBroker } from "../tests/support/mosquitto.ts";
import { delay } from "../tests/support/poll.ts";
import { withTemporaryDirectory } from "../tests/support/temporary_directory.ts";
import { type CpuUse, readCpuUse, subtractCpuUse } from "./cpu_use.ts";
import { readResult, startProgram } from "./program.ts";
import type { TestProcess } from "../tests/support/process.ts";
import type { ReceiverJob, ReceiverResult } from "./receiver_program.ts";
import type { SingleInsertJob } from "./single_insert_program.ts";
import {
  clearTable,
  createSession,
  openBroker,
  publishBacklog,
  type Stage,
  TIMEOUT_MS,
} from "./stage.ts";
import { cpuSeconds, findChild, peakMemoryBytes } from "./usage.ts";

/** The programs that drain a backlog, by the client id of their session. */
export type Drainer = "logger" | "logger-with-spool" | "receiver" | "single-insert";

/** The measurements of one drain. */
export interface Drain {
  /** Until the last row; for the receiver until the last handover. */
  readonly messagesPerSecond: number;
  /** Until the end of the last handover, which at QoS 2 is two packets after the row. */
  readonly handoversPerSecond: number;
  /** From the start of the process to the first row; undefined for the receiver. */
  readonly startSeconds?: number;
  readonly cpu: CpuUse;
  readonly peakMemoryBytes: number;
}

/** The backlog to drain, and the programs that drain it. */
export interface DrainPlan<Who extends Drainer> {
  readonly qos: 1 | 2;
  readonly count: number;
  /** In this order. */
  readonly drainers: readonly Who[];
}

/** The drain has failed if there is no new row for this time. */
const STALL_MS = 30_000;

/** Processes that use no CPU time for this long have finished. */
const QUIET_MS = 300;

/** Publishes one backlog into a session per drainer, and runs the drainers one after another. */
export async function measureDrains<Who extends Drainer>(
  stage: Stage,
  { qos, count, drainers }: DrainPlan<Who>,
): Promise<Record<Who, Drain>> {
  const broker = await openBroker(stage);
  for (const clientId of drainers) {
    const protocolVersion = clientId === "single-insert" ? 4 : 5;
    await createSession(broker, { clientId, qos, protocolVersion });
  }
  await publishBacklog(stage, broker, { qos, count });
  const drains: Partial<Record<Who, Drain>> = {};
  for (const drainer of drainers) {
    stage.progress(`Draining ${count} messages of QoS ${qos}: ${drainer}`);
    await clearTable(stage);
    const drain = { stage, broker, qos, count };
    drains[drainer] = drainer === "receiver" ? await drainEmpty(drain) : await drainToTable(
      drain,
      drainer,
    );
  }
  await stage.scope.close(broker);
  return drains as Record<Who, Drain>;
}

/** A process that drains a backlog. */
export type BenchProcess = LoggerProcess | TestProcess;

/** The backlog, and the services. */
export interface DrainContext {
  readonly stage: Stage;
  readonly broker: MosquittoBroker;
  readonly qos: 1 | 2;
  readonly count: number;
}

async function drainEmpty({ stage, broker, count }: DrainContext): Promise<Drain> {
  const { scope } = stage;
  const { host, port } = broker;
  const cpuBefore = readCpuUse(stage);
  const job: ReceiverJob = { host, port, clientId: "receiver", count };
  const process = await scope.open(() => startProgram("receiver_program", job));
  const { seconds } = await readResult<ReceiverResult>(process, TIMEOUT_MS);
  const drain = {
    messagesPerSecond: count / seconds,
    handoversPerSecond: count / seconds,
    cpu: subtractCpuUse(readCpuUse(stage, process.pid), cpuBefore),
    peakMemoryBytes: peakMemoryBytes(process.pid),
  };
  await scope.close(process);
  return drain;
}

async function drainToTable(
  { stage, broker, qos, count }: DrainContext,
  clientId: Exclude<Drainer, "receiver">,
): Promise<Drain> {
  const { database } = stage;
  const { host, port } = broker;
  if (clientId === "single-insert") {
    const job = { broker: { host, port }, clientId, qos, database: database.logger };
    const start = (): BenchProcess =>
      startProgram("single_insert_program", job satisfies SingleInsertJob);
    return await measureProcess({ stage, broker, qos, count }, start);
  }
  using directory = withTemporaryDirectory();
  const env = loggerEnv({ database, broker }, {
    MQTT_CLIENT_ID: clientId,
    MQTT_QOS: `${qos}`,
    ...(clientId === "logger-with-spool" && { SPOOL_DIRECTORY: directory.path }),
  });
  return await measureProcess({ stage, broker, qos, count }, () => startLogger(env));
}

/** Starts a process that drains the backlog, and measures it until the backlog is empty. */
export async function measureProcess(
  { stage, count }: DrainContext,
  start: () => BenchProcess,
): Promise<Drain> {
  const { scope } = stage;
  const cpuBefore = readCpuUse(stage);
  const startMs = Date.now();
  const process = await scope.open(start);
  await waitForRows(stage, { count, process });
  const quietMs = await waitForQuiet([process.pid, findChild("mosquitto")]);
  const used = {
    cpu: subtractCpuUse(readCpuUse(stage, process.pid), cpuBefore),
    peakMemoryBytes: peakMemoryBytes(process.pid),
  };
  for (const line of process.lines) if (!line.includes(" INFO ")) stage.progress(line);
  await scope.close(process);
  const { firstMs, lastMs, firstRows } = await readCommits(stage);
  const rows = count - firstRows;
  return {
    messagesPerSecond: rows * 1000 / (lastMs - firstMs),
    handoversPerSecond: rows * 1000 / (Math.max(lastMs, quietMs) - firstMs),
    startSeconds: (firstMs - startMs) / 1000,
    ...used,
  };
}

/** Waits until the table has `count` rows. While it grows, only its size is queried. */
export async function waitForRows(
  { sql }: Stage,
  { count, process }: {
    readonly count: number;
    readonly process: { readonly isRunning: boolean; readonly lines: readonly string[] };
  },
): Promise<void> {
  let bytes = "0";
  let rows = 0;
  let growthMs = performance.now();
  while (rows < count) {
    if (!process.isRunning || performance.now() - growthMs > STALL_MS) {
      const state = process.isRunning ? "no new rows" : "the process has ended";
      throw new Error(
        `Draining: ${rows} of ${count} rows, ${state}, output:\n${process.lines.join("\n")}`,
      );
    }
    await delay(100);
    const [size] = await sql.query<{ bytes: string }>(
      "SELECT pg_relation_size('sensor_data') AS bytes",
    );
    if (size?.bytes !== bytes) {
      bytes = size?.bytes ?? "0";
      growthMs = performance.now();
    } else if (bytes !== "0") {
      const [row] = await sql.query<{ rows: number }>(
        "SELECT count(*)::int AS rows FROM sensor_data",
      );
      rows = row?.rows ?? 0;
    }
  }
}

/**
 * Waits until the processes are idle, which means that all handovers are complete. Neither process
 * reports that itself.
 *
 * @returns the time when they became idle, in ms since 1970-01-01 00:00 UTC.
 */
export async function waitForQuiet(pids: readonly number[]): Promise<number> {
  let busyMs = Date.now();
  let before = NaN;
  while (Date.now() - busyMs < QUIET_MS) {
    const used = pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
    // An idle process may also use one tick of the kernel's clock.
    if (!(used - before < 0.015)) busyMs = Date.now();
    before = used;
    await delay(50);
  }
  return busyMs;
}

/** The commit times of the rows, as recorded by the server (track_commit_timestamp). */
export async function readCommits({ sql }: Stage): Promise<{
  readonly firstMs: number;
  readonly lastMs: number;
  /** Rows of the first commit; it is not known when their transaction began. */
  readonly firstRows: number;
}> {
  const [row] = await sql.query<{ first_ms: number; last_ms: number; first_rows: number }>(`
    WITH commits AS (
      SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 * 1000 AS ms, count(*)
      FROM sensor_data GROUP BY xmin
    )
    SELECT min(ms) AS first_ms, max(ms) AS last_ms,
           (array_agg(count ORDER BY ms))[1]::int AS first_rows
    FROM commits`);
  if (row === undefined) throw new Error("Reading the commit times: no row");
  return { firstMs: row.first_ms, lastMs: row.last_ms, firstRows: row.first_rows };
}
