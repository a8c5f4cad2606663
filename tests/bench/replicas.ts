/** How much faster several loggers drain what they share, on a machine that they share as well. */
import { loggerEnv, startLogger } from "../services/logger_process.ts";
import { subscribe } from "../services/subscriber.ts";
import { readCommits, waitForRows } from "./drain.ts";
import { clearTable, openBroker, publishBacklog, type Stage } from "./stage.ts";

const COUNTS = [1, 2, 4] as const;
const FILTER = "$share/bench/sensors/#";

/** What so many loggers stored together. */
export interface ReplicasRate {
  readonly loggers: number;
  readonly messagesPerSecond: number;
}

/** Drains a backlog of `count` messages of QoS 1 by one, two and four loggers of a group. */
export async function measureReplicas(stage: Stage, count: number): Promise<ReplicasRate[]> {
  const rates: ReplicasRate[] = [];
  for (const loggers of COUNTS) {
    const broker = await openBroker(stage);
    const names = Array.from({ length: loggers }, (_, index) => `replica-${index}`);
    // The broker assigns messages to members that are away, too.
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
    rates.push({ loggers, messagesPerSecond: (count - firstRows) * 1000 / (lastMs - firstMs) });
    for (const one of processes) await stage.scope.close(one);
    await stage.scope.close(broker);
  }
  return rates;
}

/** A line for each. */
export function formatReplicas(rates: readonly ReplicasRate[]): string {
  const first = rates[0]?.messagesPerSecond ?? NaN;
  return rates.map(({ loggers, messagesPerSecond }) =>
    `${loggers} ${loggers === 1 ? "logger " : "loggers"}  ` +
    `${Math.round(messagesPerSecond).toLocaleString("en").padStart(9)} messages/s  ` +
    `${(messagesPerSecond / first).toFixed(2)} ×\n`
  ).join("");
}
