/** The log as a list of lines, for tests of code that logs. */
import { configureLog, type LogConfig } from "../../lib/common/log.ts";

/** Collects the lines of the log from now on, each with its line feed. */
export function captureLog(
  { level = "DEBUG", format = "text" }: Partial<LogConfig> = {},
): string[] {
  const lines: string[] = [];
  configureLog({ level, format }, { write: (line) => lines.push(line) });
  return lines;
}

/** A line of the text log without its time: `INFO     Connected.` */
export function withoutTime(line: string): string {
  return line.replace(/^\S+ \S+ /, "").replace(/\n$/, "");
}
