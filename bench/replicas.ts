/** The drain rate of several loggers in a shared group, all on the same machine. */
import { loggerEnv, startLogger } from "../tests/support/logger_process.ts";
import { subscribe } from "../tests/support/subscriber.ts";
import { readCommits, waitForRows } from "./drain.ts";
import { median } from "./median.ts";
import { clearTable, openBroker, publishBacklog, type Stage } from "./stage.ts";

const COUNTS = [1, 2, 3, 4] as const;

/** Number of measurements of each group size; the sizes take turns. */
const ROUNDS = 3;

const FILTER = "$share/bench/sensors/#";

/** The total rate of a number of loggers. */
export interface ReplicasRate {
  readonly loggers: number;
  /** One rate per round. */
  readonly messagesPerSecond: number[];
}

/** Drains backlogs of `count` messages of QoS 1 with one to four loggers of a group. */
export async function measureReplicas(stage: Stage, count: number): Promise<ReplicasRate[]> {
  const rates = COUNTS.map((loggers) => ({ loggers, messagesPerSecond: [] as number[] }));
  for (let round = 0; round < ROUNDS; round++) {
    for (const { loggers, messagesPerSecond } of rates) {
      messagesPerSecond.push(await measure(stage, { loggers, count }));
    }
  }
  return rates;
}

async function measure(
  stage: Stage,
  { loggers, count }: { readonly loggers: number; readonly count: number },
): Promise<number> {
  const broker = await openBroker(stage);
  const names = Array.from({ length: loggers }, (_, index) => `replica-${index}`);
  // The broker also assigns messages to members that are offline.
  for (const clientId of names) {
    await using _ = await subscribe(broker, {
      clientId,
      filter: FILTER,
      qos: 1,
      protocolVersion: 5,
    });
  }
  await publishBacklog(stage, broker, { qos: 1, count });
  await clearTable(stage);
  stage.progress(`Draining ${count} messages: ${loggers} loggers`);
  const processes = await Promise.all(
    names.map((clientId) =>
      stage.scope.open(() =>
        startLogger(loggerEnv({ database: stage.database, broker }, {
          MQTT_CLIENT_ID: clientId,
          MQTT_SHARED_GROUP: "bench",
          MQTT_QOS: "1",
        }))
      )
    ),
  );
  for (const process of processes) await process.waitForLine("Connected to database");
  const [process] = processes;
  if (process === undefined) throw new TypeError("no logger");
  await waitForRows(stage, { count, process });
  const { firstMs, lastMs, firstRows } = await readCommits(stage);
  for (const one of processes) await stage.scope.close(one);
  await stage.scope.close(broker);
  return (count - firstRows) * 1000 / (lastMs - firstMs);
}

/** A line per group size: median, minimum and maximum rate, and the ratio to a single logger. */
export function formatReplicas(rates: readonly ReplicasRate[]): string {
  const rate = (value: number): string => Math.round(value).toLocaleString("en").padStart(9);
  const first = median(rates[0]?.messagesPerSecond ?? []);
  return rates.map(({ loggers, messagesPerSecond }) =>
    `${loggers} ${loggers === 1 ? "logger " : "loggers"}  ` +
    `${rate(median(messagesPerSecond))} messages/s ` +
    `(${rate(Math.min(...messagesPerSecond))} to ${rate(Math.max(...messagesPerSecond))})  ` +
    `${(median(messagesPerSecond) / first).toFixed(2)} ×\n`
  ).join("");
}
