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
import type { LogConfig, LogFormat, LogLevel } from "../config/config.ts";

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
    return `${localTime(new Date(record.timestamp))} ${level} ${escapeControls(textOf(record))}`;
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

/** Control characters, which a payload may hold, must not break the line or forge another. */
export function escapeControls(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, escapeCharacter);
}

function escapeCharacter(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** `2026-11-23 17:31:56.480` in the time zone of the host. */
function localTime(time: Date): string {
  const pad = (value: number, digits = 2): string => String(value).padStart(digits, "0");
  const day = [time.getFullYear(), pad(time.getMonth() + 1), pad(time.getDate())].join("-");
  const clock = [time.getHours(), time.getMinutes(), time.getSeconds()].map((part) => pad(part));
  return `${day} ${clock.join(":")}.${pad(time.getMilliseconds(), 3)}`;
}

/** `2026-11-23 17:31:56` for a time in ms since 1970. */
export function formatTime(timeMs: number): string {
  return localTime(new Date(timeMs)).slice(0, -4);
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

/** How many lines of a flood are written in one interval, and how long that is. */
const FLOOD_BURST = 10;
const FLOOD_INTERVAL_MS = 60_000;

/**
 * Keeps one kind of line from flooding the log: ten are written in a minute, and at its end how
 * many were left out. Whoever owns it calls `flush` at the end.
 */
export class FloodGuard {
  readonly #subject: string;
  #written = 0;
  #leftOut = 0;
  #minute: ReturnType<typeof setTimeout> | undefined;

  /** `subject` completes the sentence "12 more … were left out of the log". */
  constructor(subject: string) {
    this.#subject = subject;
  }

  /** Whether lines are left out at the moment. */
  get isFull(): boolean {
    return this.#written >= FLOOD_BURST;
  }

  /** Writes the line that `text` makes as a WARNING, or counts it. Returns whether it wrote. */
  warning(text: () => string): boolean {
    this.#minute ??= setTimeout(() => this.flush(), FLOOD_INTERVAL_MS);
    if (this.isFull) {
      this.#leftOut++;
      return false;
    }
    this.#written++;
    log.warning(text());
    return true;
  }

  /** Ends the minute: says how many lines were left out, if any were. */
  flush(): void {
    clearTimeout(this.#minute);
    this.#minute = undefined;
    this.#written = 0;
    if (this.#leftOut > 0) {
      log.warning(`${this.#leftOut} more ${this.#subject} were left out of the log.`);
    }
    this.#leftOut = 0;
  }
}
