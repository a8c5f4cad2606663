/**
 * The log: one line an event on standard error, as text or JSON.
 *
 * The only module that knows the logging library. Nothing that it writes may be a secret; nothing
 * that goes wrong while it writes may stop the logger.
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

/** Which lines are written, and how. */
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

/** Priorities of the journal (sd-daemon(3)). */
const PRIORITIES: Readonly<Record<LogLevel, number>> = {
  DEBUG: 7,
  INFO: 6,
  WARNING: 4,
  ERROR: 3,
  CRITICAL: 2,
};

/** Receives each finished line, its line feed included. */
export type WriteLine = (line: string) => void;

/** Where the lines go. */
export interface LogOutput {
  /** Standard error by default. */
  readonly write?: WriteLine;
  /** Whether that is the journal; see `isJournal`. */
  readonly journal?: boolean;
}

const STDERR = 2;

const logger = getLogger("kraken");

/**
 * Whether standard error goes to the journal of systemd (systemd.exec(5), "$JOURNAL_STREAM"): then
 * text lines have a priority, by which `journalctl --priority` selects, in place of the time, which
 * the journal has by itself.
 */
export function isJournal(journalStream: string | undefined): boolean {
  if (journalStream === undefined || journalStream === "") return false;
  try {
    const { dev, ino } = fstatSync(STDERR, { bigint: true });
    return journalStream === `${dev}:${ino}`;
  } catch {
    return false; // Closed: nobody reads the log.
  }
}

/** Sets level and format. Before the first call nothing is logged; a later call replaces them. */
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

/** The five levels of the log. Texts are sentences; they are written as they are. */
export const log = {
  debug: (text: string): void => logger.debug("{text}", { text }),
  info: (text: string): void => logger.info("{text}", { text }),
  warning: (text: string): void => logger.warning("{text}", { text }),
  error: (text: string): void => logger.error("{text}", { text }),
  critical: (text: string): void => logger.fatal("{text}", { text }),
  /** Whether `debug` writes anything: asked before a text is made for every single reading. */
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
  json: (record) =>
    JSON.stringify({
      time: new Date(record.timestamp).toISOString(),
      level: LEVEL_NAMES[record.level],
      message: textOf(record),
    }),
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
    // Whoever read the log is gone (a closed pipe, a full disk). The readings matter more.
  }
}
