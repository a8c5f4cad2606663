/** `deno task bench`: measures the logger with its own services and prints a table. */
import { findProgram } from "../tests/support/programs.ts";
import { runSuccessfully } from "../tests/support/process.ts";
import { measureCopy } from "./copy.ts";
import { measureDrains } from "./drain.ts";
import { measureLatency } from "./latency.ts";
import { type BenchOptions, HELP, parseOptions } from "./options.ts";
import { Scope } from "./scope.ts";
import { measureSpool } from "./spool.ts";
import { formatReplicas, measureReplicas } from "./replicas.ts";
import { formatHttpCost, HTTP_SENSORS, measureHttp } from "./http.ts";
import { prepareStage, SENSORS, type Stage } from "./stage.ts";
import {
  type DrainComparison,
  drainRows,
  formatCount,
  formatTable,
  largeBacklogRow,
  latencyRows,
  type Row,
  spoolRows,
} from "./table.ts";
import { print, printError } from "../tests/support/output.ts";

const MILLION = 1_000_000;

/**
 * Mosquitto 2.0 assigns packet identifiers to all messages of a QoS 2 backlog. Beyond 65,535 they
 * repeat, and it closes the connection of a plain MQTT client then.
 */
const MAX_PLAIN_QOS2_BACKLOG = 60_000;

const NOTES = `
Drain: rows from the first commit to the last, by the commit times of the server. The start of the
  process and its connections are not included, but are in "Start to first row". Broker and
  database run on the same machine, with default settings and fsync on; the broker has
  max_queued_messages 0 and max_inflight_messages 0 (no limit).
Last handover: when logger and broker become idle. At QoS 2 a handover ends two packets after the
  row is stored, and these packets may lag behind the rows.
Receiver: the MQTT connection of the logger, which acknowledges at once and stores nothing; from
  the first message to the end of the last handover.
COPY: the rows of the table, from a file on the server into an empty table with the same keys.
Spool: filled while the database is not available, each message acknowledged when it is on disk, by
  the times in the file; drained into the database, by the commit times, without new messages.
One INSERT each: MQTT.js and pg, five connections; messages are acknowledged before they are
  stored. At QoS 2 the backlog is ${
  formatCount(MAX_PLAIN_QOS2_BACKLOG)
}: with a larger one, Mosquitto 2.0 disconnects it.
Visible row: as seen by another connection that queries continuously, which uses CPU time of the
  database; a row is seen at most one query late.
CPU: of the logger since its start, of broker and database during the drain. Memory: VmHWM.
`;

async function measure(stage: Stage, options: BenchOptions): Promise<Row[]> {
  const { messages: count } = options;
  const rows: Row[] = [];
  for (const qos of [1, 2] as const) {
    const singleInsertCount = qos === 1 ? count : Math.min(count, MAX_PLAIN_QOS2_BACKLOG);
    const single = await measureDrains(stage, {
      qos,
      count: singleInsertCount,
      drainers: ["single-insert"],
    });
    const { logger, receiver, ...others } = await measureDrains(stage, {
      qos,
      count,
      drainers: ["receiver", "logger", "logger-with-spool"],
    });
    const copyRate = await measureCopy(stage);
    const singleInsert = single["single-insert"];
    const comparison: DrainComparison = {
      ...{ qos, count, singleInsertCount, logger, receiver, singleInsert },
    };
    rows.push(...drainRows(comparison, copyRate));
    const spool = await measureSpool(stage, { qos, count });
    rows.push(...spoolRows({ comparison, withSpool: others["logger-with-spool"], spool }));
    if (options.million) {
      const plan = { qos, count: MILLION, drainers: ["logger"] } as const;
      const { logger: drain } = await measureDrains(stage, plan);
      rows.push(largeBacklogRow({ drain, count: MILLION }, comparison));
    }
    if (options.latency) rows.push(...latencyRows(await measureLatency(stage, qos), qos));
  }
  return rows;
}

async function describeVersions({ postgres }: Stage, mosquitto: string): Promise<string> {
  // Mosquitto has no option that prints only the version.
  const help = await runSuccessfully("/bin/sh", { args: ["-c", `'${mosquitto}' -h || true`] });
  const broker = /version (\S+)/.exec(help)?.[1] ?? "of unknown version";
  const binary = Deno.env.get("KRAKEN_LOGGER_BINARY");
  return [
    binary ? `logger '${binary}'` : `logger from the sources, Deno ${Deno.version.deno}`,
    `Mosquitto ${broker}`,
    `PostgreSQL ${postgres.version}`,
    `${navigator.hardwareConcurrency} CPUs`,
  ].join(", ");
}

async function run(options: BenchOptions, mosquitto: string): Promise<void> {
  if (options.binary !== undefined) Deno.env.set("KRAKEN_LOGGER_BINARY", options.binary);
  const startMs = performance.now();
  const progress = (text: string): void =>
    printError(`${((performance.now() - startMs) / 1000).toFixed(0).padStart(4)} s  ${text}\n`);
  const interrupted = nextSignal();
  await using scope = new Scope();
  const sensors = options.onlyHttp ? HTTP_SENSORS : SENSORS;
  const running = prepareStage(scope, progress, sensors).then(async (stage) => {
    const versions = await describeVersions(stage, mosquitto);
    const text = options.onlyHttp
      ? formatHttpCost(await measureHttp(stage, options.messages))
      : options.onlyReplicas
      ? formatReplicas(await measureReplicas(stage, options.messages))
      : `${formatTable(await measure(stage, options))}${NOTES}`;
    print(`\nKraken logger: ${versions}\n\n${text}`);
  });
  running.catch(() => {
    // `Promise.race` below reports the error; after an interruption, errors are expected.
  });
  if (await Promise.race([running, interrupted]) === undefined) return;
  throw new Error("interrupted");
}

/** Resolves when a signal asks the benchmark to end. */
function nextSignal(): Promise<Deno.Signal> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      Deno.addSignalListener(signal, () => resolve(signal));
    }
  });
}

async function main(args: readonly string[]): Promise<number> {
  try {
    const options = parseOptions(args);
    if (options === null) {
      print(HELP);
      return 0;
    }
    const mosquitto = findProgram("mosquitto");
    if (mosquitto === null) {
      throw new Error(
        "Mosquitto is not installed; the figures of another broker cannot be compared",
      );
    }
    await run(options, mosquitto);
    return 0;
  } catch (error) {
    printError(`bench: ${error instanceof Error ? error.message : error}\n`);
    return 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
