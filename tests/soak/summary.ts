/**
 * What the soak prints at its end.
 */
import type { FaultCount } from "./injection.ts";
import type { Outcome } from "./comparison.ts";
import type { LoggerSums } from "./logger_keeper.ts";

/** What there is to tell. */
export interface Summary {
  /** `30 minutes, seed 7, logger from the sources, …`. */
  readonly title: string;
  readonly faults: ReadonlyMap<string, FaultCount>;
  /** Kinds of faults that this machine does not allow, and why. */
  readonly leftOut: readonly string[];
  /** Times that the logger was ended while another fault lasted. */
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

/** Whether every reading is in the table once, and nothing else went wrong. */
export function isClean({ outcome, problems }: Pick<Summary, "outcome" | "problems">): boolean {
  const { lost, storedTwice, wrong, notRecorded } = outcome;
  return lost + storedTwice + Math.abs(wrong) + notRecorded === 0 &&
    problems.length + outcome.problems.length === 0;
}

/** The summary as text. */
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
      ["stored otherwise than published", count(outcome.wrong)],
      ["rejected, but not recorded", count(outcome.notRecorded)],
    ]),
    formatColumns([
      `loggers: ${loggers.starts}, of which ${loggers.cleanEnds} were asked to end; these`,
      "count",
    ], [
      ["received", count(sums.received)],
      ["found in the spool", count(sums.found)],
      ["absorbed as duplicates", count(sums.duplicates)],
      ["recognised as redelivered while in flight", count(sums.redelivered)],
    ]),
    problems.length === 0
      ? "Nothing is lost, and nothing is there twice."
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

/** A whole number with commas between the thousands. */
function count(value: number): string {
  return value.toLocaleString("en");
}
