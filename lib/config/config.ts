/**
 * The configuration: parses environment variables into one frozen object.
 *
 * `parseConfig` is pure. It either returns a configuration in which every value has been checked,
 * or throws one `ConfigError` that lists all problems. A malformed value is never replaced by a
 * default. The one exception is the log level, which must not prevent the start: INFO is used, with
 * a warning.
 */

import type { LogConfig, LogLevel } from "../common/log.ts";
import type { QoS } from "../message/delivery.ts";
import { isKeyOf, ruleForCertificates, ruleForKey } from "../common/certificates.ts";
import type { Endpoint } from "../common/endpoint.ts";
import { findMisspelled } from "./setting_names.ts";
import { type Environment, mayHoldLogin, quote, type ReadFile, Settings } from "./settings.ts";
import type { Tuning } from "./tuning.ts";
import { isTopicFilter, TOPIC_FILTER_RULE } from "../message/topic_filter.ts";

/** The modes of libpq's `sslmode` (PostgreSQL manual, "SSL Support") except the deprecated `allow`. */
export type SslMode = "disable" | "prefer" | "require" | "verify-ca" | "verify-full";

/** PEM texts with which TLS authenticates both sides. */
export interface Certificates {
  /** The trusted certificate authorities; undefined: those of the system. */
  readonly ca: string | undefined;
  /** A client certificate and its private key; both are set or neither. */
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

/** How to connect to the database. */
export interface DatabaseConfig extends Certificates {
  readonly endpoint: Endpoint;
  readonly user: string;
  readonly password: string;
  readonly name: string;
  readonly sslMode: SslMode;
  /** Number of connections that insert concurrently. */
  readonly connections: number;
  readonly tuning: Tuning;
}

/** The protocol level in CONNECT: 4 is MQTT 3.1.1 (MQTT 3.1.1, section 3.1.2.2), 5 is MQTT 5. */
export type ProtocolVersion = 4 | 5;

/** How to connect to the broker, and what to subscribe to. */
export interface MqttConfig {
  /** At least one; tried in this order, forever. */
  readonly endpoints: readonly Endpoint[];
  /** Set: a persistent session. Undefined: a random id, and a session that ends with the connection. */
  readonly clientId: string | undefined;
  readonly user: string | undefined;
  readonly password: string | undefined;
  /** At least one topic filter, as configured: without the `$share/…` of `sharedGroup`. */
  readonly filters: readonly string[];
  readonly qos: QoS;
  /** Undefined: 5, and 4 if the broker refuses 5. */
  readonly protocolVersion: ProtocolVersion | undefined;
  /** Undefined: ordinary subscriptions. */
  readonly sharedGroup: string | undefined;
  /** Undefined: plain TCP. */
  readonly tls: Certificates | undefined;
  readonly tuning: Tuning;
}

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

function parseDatabase(settings: Settings): DatabaseConfig {
  const defaultPort = settings.integer("DATABASE_PORT", { min: 1, max: 65535 }) ?? 5432;
  const host = settings.mandatory("DATABASE_HOST");
  const endpoint = host === undefined
    ? undefined
    : settings.endpoint(host, { variable: "DATABASE_HOST", defaultPort, zeroIsDefault: false });
  const sslMode = settings.choice("DATABASE_SSLMODE", {
    disable: "disable",
    prefer: "prefer",
    require: "require",
    "verify-ca": "verify-ca",
    "verify-full": "verify-full",
  }) ?? "prefer";
  // verify-ca ignores the host name, so with the many authorities of a system any certificate passes.
  if (sslMode === "verify-ca" && settings.text("DATABASE_CA_FILE") === undefined) {
    const rule = "verify-ca requires DATABASE_CA_FILE (verify-full works with the system's)";
    settings.problem("DATABASE_SSLMODE", rule);
  }
  return {
    endpoint: endpoint ?? { host: "", port: defaultPort },
    user: settings.mandatory("DATABASE_USER") ?? "",
    password: settings.mandatory("DATABASE_PASSWORD") ?? "",
    name: settings.text("DATABASE_NAME") ?? "sensors",
    sslMode,
    ...parseCertificates(settings, "DATABASE"),
    connections: settings.integer("DATABASE_CONNECTIONS", { min: 1, max: 64 }) ?? 2,
    tuning: settings.tuning,
  };
}

function parseMqtt(settings: Settings): MqttConfig {
  const tls = parseMqttTls(settings);
  const port = settings.integer("MQTT_PORT", { min: 0, max: 65535 });
  const defaultPort = port || (tls ? 8883 : 1883);
  const hosts = settings.mandatory("MQTT_HOST") ?? "";
  // A login may contain commas; only the whole text shows what must be hidden in the message.
  const endpoints = (mayHoldLogin(hosts) ? [hosts] : list(hosts)).map((host) =>
    settings.endpoint(host, { variable: "MQTT_HOST", defaultPort, zeroIsDefault: true })
  );
  const user = settings.text("MQTT_CLIENT_USER");
  const password = settings.text("MQTT_CLIENT_PASSWORD");
  if (
    password !== undefined && user === undefined && !settings.isRefused("MQTT_CLIENT_USER_FILE")
  ) {
    settings.problem("MQTT_CLIENT_USER", "must be set if MQTT_CLIENT_PASSWORD is");
  }
  const sharedGroup = settings.text("MQTT_SHARED_GROUP");
  if (sharedGroup !== undefined && /[/+#\0]/.test(sharedGroup)) {
    settings.problem("MQTT_SHARED_GROUP", "must not contain '/', '+' or '#'", sharedGroup);
  }
  return {
    endpoints: endpoints.filter((endpoint) => endpoint !== undefined),
    clientId: settings.text("MQTT_CLIENT_ID"),
    user,
    password,
    filters: parseFilters(settings, sharedGroup),
    qos: settings.choice("MQTT_QOS", { "0": 0, "1": 1, "2": 2 }) ?? 2,
    protocolVersion: settings.choice("MQTT_PROTOCOL_VERSION", {
      "3.1.1": 4,
      "4": 4,
      "5": 5,
    }),
    sharedGroup,
    tls,
    tuning: settings.tuning,
  };
}

function parseMqttTls(settings: Settings): Certificates | undefined {
  const on = settings.choice("MQTT_TLS", {
    on: true,
    true: true,
    yes: true,
    "1": true,
    off: false,
    false: false,
    no: false,
    "0": false,
  });
  if (settings.isRefused("MQTT_TLS")) return undefined;
  const files = ["MQTT_CA_FILE", "MQTT_CERT_FILE", "MQTT_KEY_FILE"];
  if (on) {
    return parseCertificates(settings, "MQTT");
  }
  for (const name of files.filter((name) => settings.text(name) !== undefined)) {
    settings.problem(name, "has no effect without MQTT_TLS=on", settings.text(name));
  }
  return undefined;
}

/** Reads the PEM files whose variables are set. */
function parseCertificates(settings: Settings, prefix: "DATABASE" | "MQTT"): Certificates {
  const names = { ca: `${prefix}_CA_FILE`, cert: `${prefix}_CERT_FILE`, key: `${prefix}_KEY_FILE` };
  const isSet = (name: string): boolean => settings.text(name) !== undefined;
  if (isSet(names.cert) !== isSet(names.key)) {
    const missing = isSet(names.cert) ? names.key : names.cert;
    settings.problem(
      missing,
      `must be set: a client certificate requires ${names.cert} and ${names.key}`,
    );
  }
  const ca = settings.file(names.ca, ruleForCertificates);
  const cert = settings.file(names.cert, ruleForCertificates);
  const fits = (text: string): boolean =>
    cert === undefined || settings.isRefused(names.cert) || isKeyOf(text, cert);
  const mismatch = `must name the key that belongs to the certificate in ${names.cert}`;
  const key = settings.file(
    names.key,
    (text) => ruleForKey(text) ?? (fits(text) ? undefined : mismatch),
  );
  return { ca, cert, key };
}

function parseFilters(settings: Settings, sharedGroup: string | undefined): string[] {
  const filters = list(settings.text("MQTT_TOPIC") ?? "sensors/#");
  for (const filter of filters) {
    if (!isTopicFilter(filter)) {
      const rule = `must be topic filters separated by commas, ${TOPIC_FILTER_RULE}`;
      settings.problem("MQTT_TOPIC", rule, filter);
    } else if (filter.startsWith("$share/") && !/^\$share\/[^+#/]+\/./.test(filter)) {
      settings.problem("MQTT_TOPIC", "must have the form '$share/GROUP/FILTER'", filter);
    } else if (filter.startsWith("$share/") && sharedGroup !== undefined) {
      settings.problem(
        "MQTT_TOPIC",
        "must not begin with '$share/' if MQTT_SHARED_GROUP is set",
        filter,
      );
    }
  }
  return filters;
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

/** Splits a comma-separated list; an empty text has no element. */
function list(text: string): string[] {
  return text === "" ? [] : text.split(",").map((element) => element.trim());
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null) Object.values(value).forEach(deepFreeze);
  return Object.freeze(value);
}
