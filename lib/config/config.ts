/**
 * The configuration: parses environment variables into one frozen object.
 *
 * `parseConfig` is pure. It either returns a configuration in which every value has been checked,
 * or throws one `ConfigError` that lists all problems. A malformed value is never replaced by a
 * default. The one exception is the log level, which must not prevent the start: INFO is used, with
 * a warning.
 */

import type { LogConfig, LogLevel } from "../common/log.ts";
import { type DatabaseConfig, parseDatabase } from "./database.ts";
import { type MqttConfig, parseMqtt } from "./mqtt.ts";
import { findMisspelled } from "./setting_names.ts";
import { type Environment, quote, type ReadFile, Settings } from "./settings.ts";
import type { Tuning } from "./tuning.ts";

/** Where messages wait on disk while the database is unavailable. */
export interface SpoolConfig {
  readonly directory: string;
  /** Maximum size of the spool file, in bytes. */
  readonly maxBytes: number;
  readonly tuning: Tuning;
}

/** The part of the configuration that concerns storage. */
export interface StorageConfig {
  readonly database: DatabaseConfig;
  readonly spool: SpoolConfig;
}

/** Where the HTTP server listens. */
export interface HttpConfig {
  readonly host: string;
  readonly port: number;
}

/** The whole configuration. */
export interface Config {
  readonly database: DatabaseConfig;
  readonly mqtt: MqttConfig;
  readonly log: LogConfig;
  /** Undefined: no spool. */
  readonly spool: SpoolConfig | undefined;
  /** Undefined: no HTTP server. */
  readonly http: HttpConfig | undefined;
  /** Oddities that do not prevent the start, one or two sentences each. */
  readonly warnings: readonly string[];
  readonly tuning: Tuning;
}

/**
 * Parses and checks the environment. Returns the configuration, frozen.
 *
 * An empty value counts as not set. `readFile` is called for each variable that names a file.
 *
 * @throws {ConfigError} with all problems, if there is any.
 */
export function parseConfig(env: Environment, readFile: ReadFile): Config {
  const settings = new Settings(env, readFile);
  const database = parseDatabase(settings);
  const mqtt = parseMqtt(settings);
  const log = parseLog(settings);
  const spool = parseSpool(settings);
  const http = parseHttp(settings);
  const typos = findMisspelled(env);
  settings.throwProblems(typos);
  return deepFreeze({
    database,
    mqtt,
    log,
    spool,
    http,
    warnings: [...settings.warnings, ...typos],
    tuning: database.tuning,
  });
}

/**
 * As `parseConfig`, for commands that query a running logger: only the HTTP settings.
 *
 * @throws {ConfigError} when HTTP_PORT is not set, or an HTTP setting is malformed.
 */
export function parseHttpConfig(env: Environment, readFile: ReadFile): HttpConfig {
  const settings = new Settings(env, readFile);
  const http = parseHttp(settings);
  if (http === undefined && settings.text("HTTP_PORT") === undefined) {
    settings.problem("HTTP_PORT", "must be set to the port of the running logger");
  }
  settings.throwProblems(findMisspelled(env));
  return deepFreeze(http as HttpConfig);
}

function parseHttp(settings: Settings): HttpConfig | undefined {
  const host = settings.listeningHost("HTTP_HOST", { portVariable: "HTTP_PORT" });
  const port = settings.integer("HTTP_PORT", { min: 1, max: 65535 });
  if (port !== undefined) return { host: host ?? "127.0.0.1", port };
  if (host !== undefined) settings.warnings.push("HTTP_HOST has no effect without HTTP_PORT.");
  return undefined;
}

/**
 * As `parseConfig`, for commands that need only the database.
 *
 * @throws {ConfigError} when a setting of the database is missing or malformed.
 */
export function parseDatabaseConfig(env: Environment, readFile: ReadFile): DatabaseConfig {
  const settings = new Settings(env, readFile);
  const database = parseDatabase(settings);
  settings.throwProblems(findMisspelled(env));
  return deepFreeze(database);
}

/**
 * As `parseConfig`, for commands that need only the spool.
 *
 * @throws {ConfigError} when no spool is configured, or a setting of it is malformed.
 */
export function parseSpoolConfig(env: Environment, readFile: ReadFile): SpoolConfig {
  const settings = new Settings(env, readFile);
  const spool = parseMandatorySpool(settings);
  settings.throwProblems(findMisspelled(env));
  return deepFreeze(spool);
}

/**
 * As `parseConfig`, for commands that need the spool and the database.
 *
 * @throws {ConfigError} when no spool is configured, or a setting of the two is missing or malformed.
 */
export function parseStorageConfig(env: Environment, readFile: ReadFile): StorageConfig {
  const settings = new Settings(env, readFile);
  const config = { database: parseDatabase(settings), spool: parseMandatorySpool(settings) };
  settings.throwProblems(findMisspelled(env));
  return deepFreeze(config);
}

const LEVELS: Readonly<Record<string, LogLevel>> = {
  DEBUG: "DEBUG",
  "10": "DEBUG",
  INFO: "INFO",
  "20": "INFO",
  WARNING: "WARNING",
  WARN: "WARNING",
  "30": "WARNING",
  ERROR: "ERROR",
  "40": "ERROR",
  CRITICAL: "CRITICAL",
  FATAL: "CRITICAL",
  "50": "CRITICAL",
};

function parseLog(settings: Settings): LogConfig {
  const text = settings.text("APPLICATION_LOG_LEVEL") ?? "INFO";
  const level = LEVELS[text.toUpperCase()];
  if (level === undefined) {
    settings.warnings.push(
      `APPLICATION_LOG_LEVEL must be DEBUG, INFO, WARNING, ERROR or CRITICAL, ` +
        `received ${quote(text)}. INFO is used instead.`,
    );
  }
  const format = settings.choice("APPLICATION_LOG_FORMAT", { text: "text", json: "json" });
  return { level: level ?? "INFO", format: format ?? "text" };
}

const GIBIBYTE = 2 ** 30;

function parseSpool(settings: Settings): SpoolConfig | undefined {
  const directory = settings.text("SPOOL_DIRECTORY") ?? stateDirectory(settings);
  const maxBytes = settings.bytes("SPOOL_MAX_BYTES", { min: 2 ** 20, max: 2 ** 44 }) ?? GIBIBYTE;
  if (directory !== undefined) return { directory, maxBytes, tuning: settings.tuning };
  if (settings.text("SPOOL_MAX_BYTES") !== undefined) {
    settings.warnings.push("SPOOL_MAX_BYTES has no effect without SPOOL_DIRECTORY.");
  }
  return undefined;
}

function parseMandatorySpool(settings: Settings): SpoolConfig {
  const spool = parseSpool(settings);
  if (spool === undefined) {
    settings.problem("SPOOL_DIRECTORY", "must be set to the spool directory of the logger");
  }
  return spool ?? { directory: "", maxBytes: GIBIBYTE, tuning: settings.tuning };
}

/** systemd passes a colon-separated list if the unit names several directories; the first is used. */
function stateDirectory(settings: Settings): string | undefined {
  return settings.text("STATE_DIRECTORY")?.split(":")[0];
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null) Object.values(value).forEach(deepFreeze);
  return Object.freeze(value);
}
