/** The summary that the soak prints at its end. */
import type { FaultCount } from "./injection.ts";
import type { Outcome } from "./comparison.ts";
import type { LoggerSums } from "./logger_keeper.ts";

/** The content of the summary. */
export interface Summary {
  /** `30 minutes, seed 7, logger from the sources, …`. */
  readonly title: string;
  readonly faults: ReadonlyMap<string, FaultCount>;
  /** Kinds of faults that this machine does not support, with the reason. */
  readonly leftOut: readonly string[];
  /** Number of ends of the logger during another fault. */
  readonly overlaps: number;
  readonly published: {
    readonly readings: number;
    readonly noise: number;
    readonly repetitions: number;
  };
  readonly loggers: { readonly starts: number; readonly cleanEnds: number };
  readonly sums: LoggerSums;
  readonly outcome: Outcome;
  readonly problems: readonly string[];
}

/** Whether every reading is stored exactly once, and there are no other problems. */
export function isClean({ outcome, problems }: Pick<Summary, "outcome" | "problems">): boolean {
  const { lost, storedTwice, wrong, notRecorded } = outcome;
  return lost + storedTwice + Math.abs(wrong) + notRecorded === 0 &&
    problems.length + outcome.problems.length === 0;
}

/** Formats the summary. */
export function formatSummary(summary: Summary): string {
  const { title, faults, leftOut, overlaps, published, loggers, sums, outcome } = summary;
  const problems = [...summary.problems, ...outcome.problems];
  const sections = [
    formatColumns(["fault", "times", "seconds"], [
      ...[...faults].map(([kind, { times, seconds }]) => [kind, count(times), seconds.toFixed(1)]),
      ["ends of the logger during another fault", count(overlaps), ""],
    ]),
    ...leftOut.length === 0 ? [] : [`Left out: ${leftOut.join("; ")}`],
    formatColumns(["messages", "count"], [
      ["readings published", count(published.readings)],
      ["others published, which are not to be stored", count(published.noise)],
      ["published again after a lost connection", count(published.repetitions)],
      ["stored", count(outcome.rows)],
      ["lost", count(outcome.lost)],
      ["stored twice", count(outcome.storedTwice)],
      ["stored with another value", count(outcome.wrong)],
      ["rejected, but not recorded", count(outcome.notRecorded)],
    ]),
    formatColumns([
      `loggers: ${loggers.starts}, of which ${loggers.cleanEnds} were stopped; these`,
      "count",
    ], [
      ["received", count(sums.received)],
      ["found in the spool", count(sums.found)],
      ["absorbed as duplicates", count(sums.duplicates)],
      ["recognized as redelivered while in flight", count(sums.redelivered)],
    ]),
    problems.length === 0
      ? "No reading was lost or stored twice."
      : `PROBLEMS\n${problems.map((problem) => `- ${problem}`).join("\n")}`,
  ];
  return `\nKraken logger, soaked: ${title}\n\n${sections.join("\n\n")}\n`;
}

function formatColumns(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((_, column) =>
    Math.max(...[header, ...rows].map((row) => row[column]?.length ?? 0))
  );
  const format = (row: readonly string[]): string =>
    row.map((cell, column) =>
      column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)
    ).join("  ").trimEnd();
  const rule = widths.map((width) => "-".repeat(width)).join("  ");
  return [format(header), rule, ...rows.map(format)].join("\n");
}

/** An integer with commas between the thousands. */
function count(value: number): string {
  return value.toLocaleString("en");
}
