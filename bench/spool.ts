/**
 * The rates of the spool: filled with a backlog while the database is not available, each message
 * acknowledged when it is on disk, and then drained into the database.
 */
import { DatabaseSync } from "node:sqlite";
import { loggerEnv, startLogger } from "../tests/support/logger_process.ts";
import { findFreePort } from "../tests/support/ports.ts";
import { withTemporaryDirectory } from "../tests/support/temporary_directory.ts";
import { readCommits, waitForQuiet, waitForRows } from "./drain.ts";
import { clearTable, createSession, openBroker, publishBacklog, type Stage } from "./stage.ts";
import { findChild, peakMemoryBytes } from "./usage.ts";

/** The measurements. */
export interface SpoolRates {
  /** Into the spool, from the first transaction to the last. */
  readonly filledPerSecond: number;
  /** From the spool into the database, from the first commit to the last. */
  readonly emptiedPerSecond: number;
  /** Bytes of the file per message. */
  readonly bytesPerMessage: number;
  readonly peakMemoryBytes: number;
}

/** Fills the spool of a logger without a database, and then makes the database available. */
export async function measureSpool(
  stage: Stage,
  { qos, count }: { readonly qos: 1 | 2; readonly count: number },
): Promise<SpoolRates> {
  const { scope, database, progress } = stage;
  const clientId = "logger";
  using directory = withTemporaryDirectory();
  const broker = await openBroker(stage);
  await createSession(broker, { clientId, qos, protocolVersion: 5 });
  await publishBacklog(stage, broker, { qos, count });
  const env = loggerEnv({ database, broker }, {
    MQTT_CLIENT_ID: clientId,
    MQTT_QOS: `${qos}`,
    SPOOL_DIRECTORY: directory.path,
    SPOOL_MAX_BYTES: "4G",
  });

  progress(`Spooling ${count} messages of QoS ${qos}`);
  const filling = await scope.open(() =>
    startLogger({ ...env, DATABASE_PORT: String(findFreePort()) })
  );
  await filling.waitForLine("Connected to MQTT broker");
  await waitForQuiet([filling.pid, findChild("mosquitto")]);
  const fillingMemory = peakMemoryBytes(filling.pid);
  const status = await filling.stop();
  const path = `${directory.path}/spool.sqlite`;
  const { spooled, filledPerSecond } = readFilling(path);
  if (status !== 0 || spooled !== count) {
    throw new Error(`Spooling: ${spooled} of ${count} messages, exit status ${status}`);
  }
  const { size } = Deno.statSync(path);
  await scope.close(filling);

  progress(`Emptying a spool of ${count} messages`);
  await clearTable(stage);
  const emptying = await scope.open(() => startLogger(env));
  await waitForRows(stage, { count, process: emptying });
  const emptyingMemory = peakMemoryBytes(emptying.pid);
  await scope.close(emptying);
  await scope.close(broker);
  const { firstMs, lastMs, firstRows } = await readCommits(stage);
  return {
    filledPerSecond,
    emptiedPerSecond: (count - firstRows) * 1000 / (lastMs - firstMs),
    bytesPerMessage: size / count,
    peakMemoryBytes: Math.max(fillingMemory, emptyingMemory),
  };
}

/** The fill rate, by the times of the messages in the file. */
function readFilling(path: string): { spooled: number; filledPerSecond: number } {
  const database = new DatabaseSync(path);
  const row = database.prepare(`
    SELECT count(*) AS spooled, count(*) FILTER (WHERE time_ms > first_ms) AS later,
           max(time_ms) - first_ms AS duration_ms
    FROM message, (SELECT min(time_ms) AS first_ms FROM message)`).get();
  database.close();
  return {
    spooled: Number(row?.["spooled"]),
    filledPerSecond: Number(row?.["later"]) * 1000 / Number(row?.["duration_ms"]),
  };
}
