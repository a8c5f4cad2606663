/**
 * The time from publishing a message until its row is visible, at a steady rate.
 *
 * The benchmark publishes and queries the rows itself, so that one clock measures both. It queries
 * all missing readings by their keys in a loop. A row is therefore seen at most one query late: the
 * measured times are an upper bound.
 */
import { loggerEnv, startLogger } from "../tests/support/logger_process.ts";
import { closeClient, openClient } from "../tests/support/mqtt_client.ts";
import { delay } from "../tests/support/poll.ts";
import { makeSensors, toPayload } from "../tests/support/readings.ts";
import type { SqlConnection } from "../tests/support/sql.ts";
import { type CpuUse, readCpuUse, subtractCpuUse } from "./cpu_use.ts";
import { clearTable, createSession, openBroker, SENSORS, type Stage } from "./stage.ts";

/** The measured times. */
export interface Latency {
  readonly medianMs: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** CPU time during the measurement. */
  readonly cpu: CpuUse;
}

/** Published messages per second. */
export const STEADY_RATE = 1_000;
/** Duration of the measurement. */
export const STEADY_SECONDS = 15;
/** Messages before the measurement, so that one-time costs are not measured. */
const WARM_UP_MESSAGES = 3 * STEADY_RATE;

/** The time of the first reading; each further reading is one millisecond later. */
const START_TIME_MS = 1_700_000_000_000;

/** The measurement has failed if no row becomes visible for this time. */
const GIVE_UP_MS = 10_000;

/** Publishes at {@linkcode STEADY_RATE} with the given QoS, and measures the times. */
export async function measureLatency(stage: Stage, qos: 1 | 2): Promise<Latency> {
  const { scope, database, progress } = stage;
  progress(`Publishing ${STEADY_RATE} messages of QoS ${qos} per second for ${STEADY_SECONDS} s`);
  await clearTable(stage);
  const broker = await openBroker(stage);
  await createSession(broker, { clientId: "logger", qos });
  const env = loggerEnv({ database, broker }, { MQTT_CLIENT_ID: "logger", MQTT_QOS: `${qos}` });
  const logger = await scope.open(() => startLogger(env));
  await logger.waitForLine("Connected to MQTT broker");
  await logger.waitForLine("Connected to database");
  const watcher = await scope.open(() => openWatcher(database));
  const flow: Flow = { pending: new Map(), publishing: true };
  let cpuBefore: CpuUse | undefined;
  const [latencies] = await Promise.all([
    watch(watcher, flow),
    publishSteadily(broker, {
      qos,
      flow,
      onWarm: () => cpuBefore = readCpuUse(stage, logger.pid),
    }),
  ]);
  const cpuAfter = readCpuUse(stage, logger.pid);
  for (const resource of [watcher, logger, broker]) await scope.close(resource);
  const sorted = latencies.slice(WARM_UP_MESSAGES).sort((a, b) => a - b);
  const quantile = (part: number): number => sorted[Math.ceil(sorted.length * part) - 1] ?? NaN;
  return {
    medianMs: quantile(0.5),
    p99Ms: quantile(0.99),
    maxMs: quantile(1),
    cpu: subtractCpuUse(cpuAfter, cpuBefore ?? cpuAfter),
  };
}

/** The state shared by the publisher and the watcher. */
interface Flow {
  /** Publication times of the messages whose rows are not visible yet, by index. */
  readonly pending: Map<number, number>;
  publishing: boolean;
}

/**
 * Publishes at a steady rate, and records the times. Calls `onWarm` after the warm-up.
 */
async function publishSteadily(
  broker: { readonly host: string; readonly port: number },
  { qos, flow, onWarm }: {
    readonly qos: 1 | 2;
    readonly flow: Flow;
    readonly onWarm: () => void;
  },
): Promise<void> {
  const sensors = makeSensors(SENSORS);
  const client = await openClient(broker);
  const acknowledged: Promise<unknown>[] = [];
  try {
    const startMs = performance.now();
    for (let index = 0; index < WARM_UP_MESSAGES + STEADY_SECONDS * STEADY_RATE; index++) {
      const waitMs = startMs + index * 1000 / STEADY_RATE - performance.now();
      if (waitMs > 0) await delay(waitMs);
      if (index === WARM_UP_MESSAGES) onWarm();
      const sensor = sensors[index % SENSORS] as { uuid: string; sid: number };
      const timeUs = BigInt(START_TIME_MS + index) * 1000n;
      const payload = toPayload({ ...sensor, timeUs, value: index });
      flow.pending.set(index, performance.now());
      const topic = `sensors/bench/${sensor.uuid}/${sensor.sid}`;
      acknowledged.push(client.publishAsync(topic, payload, { qos }));
    }
    await Promise.all(acknowledged);
    flow.publishing = false;
  } finally {
    await closeClient(client);
  }
}

/**
 * Waits until all rows are visible. Returns the latency of each in milliseconds.
 *
 * @throws {Error} when some do not become visible.
 */
async function watch(watcher: Watcher, flow: Flow): Promise<number[]> {
  const { pending } = flow;
  const latencies: number[] = [];
  let lastSeenMs = performance.now();
  while (flow.publishing || pending.size > 0) {
    if (pending.size === 0) {
      await delay(1);
      continue;
    }
    const seen = await watcher.findVisible([...pending.keys()]);
    const nowMs = performance.now();
    if (seen.length > 0) lastSeenMs = nowMs;
    if (nowMs - lastSeenMs > GIVE_UP_MS) {
      throw new Error(`Publishing steadily: ${pending.size} readings do not become visible`);
    }
    for (const index of seen) {
      latencies.push(nowMs - (pending.get(index) ?? nowMs));
      pending.delete(index);
    }
  }
  return latencies;
}

/** Queries readings in the table. */
class Watcher implements AsyncDisposable {
  readonly #sql: SqlConnection;
  /** In the order in which the sensors publish. */
  readonly #sensorIds: readonly number[];

  constructor(sql: SqlConnection, sensorIds: readonly number[]) {
    this.#sql = sql;
    this.#sensorIds = sensorIds;
  }

  /** Returns the indices whose readings are visible. */
  async findVisible(indices: readonly number[]): Promise<number[]> {
    const rows = await this.#sql.query<{ index: number }>(
      `SELECT index FROM unnest($1::int[], $2::int[], $3::timestamptz[]) AS sent (index, id, time)
       WHERE EXISTS (SELECT FROM sensor_data WHERE sensor_id = sent.id AND time = sent.time)`,
      [
        indices,
        indices.map((index) => this.#sensorIds[index % SENSORS]),
        indices.map((index) => new Date(START_TIME_MS + index).toISOString()),
      ],
    );
    return rows.map(({ index }) => index);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sql[Symbol.asyncDispose]();
  }
}

async function openWatcher(database: Stage["database"]): Promise<Watcher> {
  const sql = await database.connect();
  // The planner has no statistics of a table that was just emptied: force the use of the index.
  await sql.query(
    "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off",
  );
  const rows = await sql.query<{ key: string; id: number }>(
    "SELECT concat_ws(' ', uuid, sensor_sid) AS key, id FROM sensors",
  );
  const ids = new Map(rows.map(({ key, id }) => [key, id]));
  return new Watcher(
    sql,
    makeSensors(SENSORS).map(({ uuid, sid }) => ids.get(`${uuid} ${sid}`) ?? 0),
  );
}
