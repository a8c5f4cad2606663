/** The table that the benchmark prints. */
import type { CpuUse } from "./cpu_use.ts";
import type { Drain } from "./drain.ts";
import type { SpoolRates } from "./spool.ts";
import { type Latency, STEADY_RATE, STEADY_SECONDS } from "./latency.ts";

/** A line of the table. */
export interface Row {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  /** The comparison, such as `12.3 × one INSERT each`. */
  readonly ratio?: string;
}

/** The drains of backlogs of one QoS. */
export interface DrainComparison {
  readonly qos: 1 | 2;
  readonly count: number;
  readonly logger: Drain;
  readonly receiver: Drain;
  readonly singleInsert: Drain;
  /** Messages in the backlog of the logger with single inserts. */
  readonly singleInsertCount: number;
}

const SINGLE = "one INSERT each";

/** Rate, CPU time and memory of the drains, and the rate of COPY. */
export function drainRows(comparison: DrainComparison, copyRate: number): Row[] {
  const { qos, count, singleInsertCount, logger, receiver, singleInsert } = comparison;
  const times = (value: number, base: number): string => `${formatRatio(value / base)} × ${SINGLE}`;
  const speed = (who: string, value: number): Row => ({
    what: `Drain, QoS ${qos}: ${who}`,
    value,
    unit: "messages/s",
    ratio: times(value, singleInsert.messagesPerSecond),
  });
  const memory = (who: string, drain: Drain, messages: number): Row => ({
    what: `Peak memory, QoS ${qos}, ${formatCount(messages)} messages: ${who}`,
    value: drain.peakMemoryBytes / 1e6,
    unit: "MB",
    ratio: times(drain.peakMemoryBytes, singleInsert.peakMemoryBytes),
  });
  const cpuOfSingle = scaleCpu(singleInsert.cpu, 100_000 / singleInsertCount);
  return [
    speed("logger, to the last row", logger.messagesPerSecond),
    speed("logger, to the last handover", logger.handoversPerSecond),
    speed("receiver that only acknowledges", receiver.handoversPerSecond),
    speed("COPY of the same rows", copyRate),
    speed(SINGLE, singleInsert.messagesPerSecond),
    { what: `Start to first row, QoS ${qos}: logger`, value: logger.startSeconds ?? 0, unit: "s" },
    ...cpuRows(scaleCpu(logger.cpu, 100_000 / count), {
      title: `CPU for 100,000 messages, QoS ${qos}`,
      unit: "s",
      base: cpuOfSingle,
    }),
    memory("logger", logger, count),
    memory(SINGLE, singleInsert, singleInsertCount),
  ];
}

/** The cost of a configured but unused spool, and the rates of the spool in use. */
export function spoolRows(
  { comparison: { qos, logger }, withSpool, spool }: {
    readonly comparison: DrainComparison;
    readonly withSpool: Drain;
    readonly spool: SpoolRates;
  },
): Row[] {
  const speed = (what: string, value: number): Row => ({
    what: `${what}, QoS ${qos}`,
    value,
    unit: "messages/s",
    ratio: `${formatRatio(value / logger.messagesPerSecond)} × drain by the logger`,
  });
  return [
    speed("Drain with a spool configured", withSpool.messagesPerSecond),
    speed("Into the spool", spool.filledPerSecond),
    speed("From the spool into the database", spool.emptiedPerSecond),
    { what: `Spool, QoS ${qos}: bytes per message`, value: spool.bytesPerMessage, unit: "bytes" },
    {
      what: `Peak memory with the spool, QoS ${qos}`,
      value: spool.peakMemoryBytes / 1e6,
      unit: "MB",
    },
  ];
}

/** The memory of the logger with a large backlog, compared with a smaller one. */
export function largeBacklogRow(
  large: { readonly drain: Drain; readonly count: number },
  { qos, logger, count }: DrainComparison,
): Row {
  const ratio = formatRatio(large.drain.peakMemoryBytes / logger.peakMemoryBytes);
  return {
    what: `Peak memory, QoS ${qos}, ${formatCount(large.count)} messages: logger`,
    value: large.drain.peakMemoryBytes / 1e6,
    unit: "MB",
    ratio: `${ratio} × at ${formatCount(count)}`,
  };
}

/** Latency and CPU time at a steady rate. */
export function latencyRows({ medianMs, p99Ms, maxMs, cpu }: Latency, qos: 1 | 2): Row[] {
  const title = `Publish to visible row, QoS ${qos}, ${formatCount(STEADY_RATE)}/s`;
  const time = (what: string, value: number): Row => ({
    what: `${title}: ${what}`,
    value,
    unit: "ms",
    ...(what !== "median" && { ratio: `${formatRatio(value / medianMs)} × median` }),
  });
  return [
    time("median", medianMs),
    time("99th percentile", p99Ms),
    time("maximum", maxMs),
    ...cpuRows(scaleCpu(cpu, 100 / STEADY_SECONDS), {
      title: `CPU, QoS ${qos}, ${formatCount(STEADY_RATE)}/s`,
      unit: "% of a core",
    }),
  ];
}

function cpuRows(
  cpu: CpuUse,
  { title, unit, base }: { readonly title: string; readonly unit: string; readonly base?: CpuUse },
): Row[] {
  const names = [["program", "logger"], ["broker", "broker"], ["database", "database"]] as const;
  return names.map(([key, name]) => ({
    what: `${title}: ${name}`,
    value: cpu[key],
    unit,
    ...(base && { ratio: `${formatRatio(cpu[key] / base[key])} × ${SINGLE}` }),
  }));
}

function scaleCpu({ program, broker, database }: CpuUse, factor: number): CpuUse {
  return { program: program * factor, broker: broker * factor, database: database * factor };
}

/** Formats the rows in columns. */
export function formatTable(rows: readonly Row[]): string {
  const lines = [
    ["what", "value", "unit", "ratio"],
    ...rows.map(({ what, value, unit, ratio }) => [what, formatValue(value), unit, ratio ?? ""]),
  ];
  const widths = [0, 1, 2, 3].map((column) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0))
  );
  const format = (line: readonly string[]): string =>
    line.map((cell, column) =>
      column === 1 ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0)
    ).join("  ").trimEnd();
  const [header = [], ...body] = lines;
  const rule = widths.map((width) => "-".repeat(width)).join("  ");
  return [format(header), rule, ...body.map(format)].join("\n") + "\n";
}

/** An integer with commas between the thousands. */
export function formatCount(value: number): string {
  return value.toLocaleString("en");
}

function formatValue(value: number): string {
  return value >= 100
    ? formatCount(Math.round(value))
    : value >= 10
    ? value.toFixed(1)
    : value.toFixed(2);
}

function formatRatio(ratio: number): string {
  return ratio >= 10 ? ratio.toFixed(0) : ratio >= 1 ? ratio.toFixed(1) : ratio.toFixed(2);
}
