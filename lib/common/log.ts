/**
 * The log: one line per event on standard error, as text or JSON.
 *
 * The only module that imports the logging library. Callers must not pass secrets. A failed write
 * to the log never stops the logger.
 */

import { fstatSync } from "node:fs";
import {
  configureSync,
  getLogger,
  type LogLevel as LibraryLevel,
  type LogRecord,
} from "@logtape/logtape";
import { escapeControls, formatLocalTime } from "./text.ts";

export type LogLevel = "DEBUG" | "INFO" | "WARNING" | "ERROR" | "CRITICAL";
export type LogFormat = "text" | "json";

/** Which lines are written, and in which format. */
export interface LogConfig {
  /** The lowest level that is written. */
  readonly level: LogLevel;
  readonly format: LogFormat;
}

const LIBRARY_LEVELS: Readonly<Record<LogLevel, LibraryLevel>> = {
  DEBUG: "debug",
  INFO: "info",
  WARNING: "warning",
  ERROR: "error",
  CRITICAL: "fatal",
};

const LEVEL_NAMES: Readonly<Record<LibraryLevel, LogLevel>> = {
  trace: "DEBUG",
  debug: "DEBUG",
  info: "INFO",
  warning: "WARNING",
  error: "ERROR",
  fatal: "CRITICAL",
};

/** Priorities of the systemd journal (sd-daemon(3)). */
const PRIORITIES: Readonly<Record<LogLevel, number>> = {
  DEBUG: 7,
  INFO: 6,
  WARNING: 4,
  ERROR: 3,
  CRITICAL: 2,
};

/** Receives each formatted line, including its line feed. */
export type WriteLine = (line: string) => void;

/** Where the lines are written to. */
export interface LogOutput {
  /** Standard error by default. */
  readonly write?: WriteLine;
  /** Whether `write` writes to the systemd journal; see `isJournal`. False by default. */
  readonly journal?: boolean;
}

const STDERR = 2;

const logger = getLogger("kraken");

/**
 * Whether standard error is connected to the systemd journal, given the value of `JOURNAL_STREAM`
 * (systemd.exec(5)). Text lines for the journal start with a priority, which
 * `journalctl --priority` filters by, and not with the time, which the journal records itself.
 */
export function isJournal(journalStream: string | undefined): boolean {
  if (journalStream === undefined || journalStream === "") return false;
  try {
    const { dev, ino } = fstatSync(STDERR, { bigint: true });
    return journalStream === `${dev}:${ino}`;
  } catch {
    return false; // Standard error is closed: the log has no reader.
  }
}

/** Sets level, format and output. Nothing is logged before the first call. May be called again. */
export function configureLog(
  config: LogConfig,
  { write = writeStderr, journal = false }: LogOutput = {},
): void {
  const format = FORMATS[journal && config.format === "text" ? "journal" : config.format];
  const lowestLevel = LIBRARY_LEVELS[config.level];
  configureSync({
    reset: true,
    sinks: { lines: (record) => write(`${format(record)}\n`) },
    loggers: [
      { category: "kraken", lowestLevel, sinks: ["lines"] },
      { category: ["logtape", "meta"], lowestLevel: "fatal", sinks: ["lines"] },
    ],
  });
}

/** Writes a line at one of five levels. The text is a sentence; placeholders are not expanded. */
export const log = {
  debug: (text: string): void => logger.debug("{text}", { text }),
  info: (text: string): void => logger.info("{text}", { text }),
  warning: (text: string): void => logger.warning("{text}", { text }),
  error: (text: string): void => logger.error("{text}", { text }),
  critical: (text: string): void => logger.fatal("{text}", { text }),
  /** Whether `debug` writes anything. Check it before building a text for every single reading. */
  isDebug: (): boolean => logger.isEnabledFor("debug"),
};

const FORMATS: Readonly<Record<LogFormat | "journal", (record: LogRecord) => string>> = {
  text: (record) => {
    const level = LEVEL_NAMES[record.level].padEnd(8);
    return `${formatLocalTime(new Date(record.timestamp))} ${level} ${
      escapeControls(textOf(record))
    }`;
  },
  journal: (record) => {
    const level = LEVEL_NAMES[record.level];
    return `<${PRIORITIES[level]}>${level.padEnd(8)} ${escapeControls(textOf(record))}`;
  },
  // JSON leaves DEL, the C1 controls and the line separators of Unicode as they are (RFC 8259
  // section 7), and terminals obey some of them. Their escapes have the same meaning in JSON.
  json: (record) =>
    escapeControls(JSON.stringify({
      time: new Date(record.timestamp).toISOString(),
      level: LEVEL_NAMES[record.level],
      message: textOf(record),
    })),
};

function textOf(record: LogRecord): string {
  return String(record.properties["text"] ?? record.message.join(""));
}

const encoder = new TextEncoder();

function writeStderr(line: string): void {
  try {
    let bytes = encoder.encode(line);
    while (bytes.length > 0) bytes = bytes.subarray(Deno.stderr.writeSync(bytes));
  } catch {
    // The pipe is closed or the disk is full. Storing readings must go on without a log.
  }
}
