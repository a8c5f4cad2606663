/** The log as a list of lines, for tests of what writes to it. */
import { configureLog, type LogConfig } from "../../lib/common/log.ts";

/** Collects what the log writes from now on; each line with its line feed. */
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
