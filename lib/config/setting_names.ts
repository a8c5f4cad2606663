/**
 * The names of all settings, and a guess at misspelled ones: a setting that is ignored without a
 * warning is noticed only when its effect is missing.
 */

import { closest, distance } from "fastest-levenshtein";
import { type Environment, SECRETS } from "./settings.ts";

/** The names of all settings. */
export const SETTINGS: readonly string[] = [
  ...SECRETS,
  ...SECRETS.map((name) => `${name}_FILE`),
  "DATABASE_HOST",
  "DATABASE_PORT",
  "DATABASE_NAME",
  "DATABASE_SSLMODE",
  "DATABASE_CA_FILE",
  "DATABASE_CERT_FILE",
  "DATABASE_KEY_FILE",
  "DATABASE_CONNECTIONS",
  "MQTT_HOST",
  "MQTT_PORT",
  "MQTT_CLIENT_ID",
  "MQTT_TOPIC",
  "MQTT_QOS",
  "MQTT_PROTOCOL_VERSION",
  "MQTT_SHARED_GROUP",
  "MQTT_TLS",
  "MQTT_CA_FILE",
  "MQTT_CERT_FILE",
  "MQTT_KEY_FILE",
  "APPLICATION_LOG_LEVEL",
  "APPLICATION_LOG_FORMAT",
  "SPOOL_DIRECTORY",
  "SPOOL_MAX_BYTES",
  "STATE_DIRECTORY",
  "HTTP_HOST",
  "HTTP_PORT",
];

/** Names that other programs use for the settings. That of a secret may also end in `_FILE`. */
export const OTHER_NAMES: Readonly<Record<string, string>> = {
  DB_HOST: "DATABASE_HOST",
  DB_PORT: "DATABASE_PORT",
  DB_USER: "DATABASE_USER",
  DB_PASSWORD: "DATABASE_PASSWORD",
  DB_NAME: "DATABASE_NAME",
  DATABASE_SERVER: "DATABASE_HOST",
  DATABASE_URL: "DATABASE_HOST",
  DATABASE_USERNAME: "DATABASE_USER",
  DATABASE_PASS: "DATABASE_PASSWORD",
  DATABASE_DB: "DATABASE_NAME",
  DATABASE_SSL: "DATABASE_SSLMODE",
  DATABASE_TLS: "DATABASE_SSLMODE",
  MQTT_BROKER: "MQTT_HOST",
  MQTT_SERVER: "MQTT_HOST",
  MQTT_URL: "MQTT_HOST",
  MQTT_ID: "MQTT_CLIENT_ID",
  MQTT_USER: "MQTT_CLIENT_USER",
  MQTT_USERNAME: "MQTT_CLIENT_USER",
  MQTT_CLIENT_USERNAME: "MQTT_CLIENT_USER",
  MQTT_PASS: "MQTT_CLIENT_PASSWORD",
  MQTT_PASSWORD: "MQTT_CLIENT_PASSWORD",
  MQTT_FILTER: "MQTT_TOPIC",
  MQTT_PROTOCOL: "MQTT_PROTOCOL_VERSION",
  MQTT_VERSION: "MQTT_PROTOCOL_VERSION",
  MQTT_GROUP: "MQTT_SHARED_GROUP",
  MQTT_SSL: "MQTT_TLS",
  MQTT_CA: "MQTT_CA_FILE",
  MQTT_CA_CERT: "MQTT_CA_FILE",
  MQTT_CERT: "MQTT_CERT_FILE",
  MQTT_KEY: "MQTT_KEY_FILE",
  LOG_LEVEL: "APPLICATION_LOG_LEVEL",
  LOGLEVEL: "APPLICATION_LOG_LEVEL",
  LOG_FORMAT: "APPLICATION_LOG_FORMAT",
  SPOOL_DIR: "SPOOL_DIRECTORY",
  SPOOL_PATH: "SPOOL_DIRECTORY",
  SPOOL_MAX_SIZE: "SPOOL_MAX_BYTES",
  SPOOL_SIZE: "SPOOL_MAX_BYTES",
  HTTP_ADDRESS: "HTTP_HOST",
};

/** Maximum edit distance at which a variable is taken for a misspelled setting. */
const MAX_TYPO_DISTANCE = 2;

/** Prefixes of most settings. */
const PREFIX = /^(DATABASE|MQTT|APPLICATION|SPOOL)_/;

/** Variables that Kubernetes sets for a Service named `mqtt`, `database` or `db`. */
const SERVICE_LINK = /_SERVICE_|_PORT_\d/;
const SERVICE_LINK_ADDRESS = /^(tcp|udp|sctp):\/\//;

/** Returns a warning for each variable that looks like a misspelled or foreign name of a setting. */
export function findMisspelled(env: Environment): string[] {
  return Object.entries(env)
    .filter(([name, value = ""]) => !SETTINGS.includes(name) && !isServiceLink(name, value))
    .flatMap(([name]) => {
      const ignored = `${name} is not a setting and is ignored.`;
      const meant = guessSetting(name, env);
      if (meant !== undefined) return [`${ignored} Did you mean ${meant}?`];
      return PREFIX.test(name) ? [ignored] : [];
    });
}

function isServiceLink(name: string, value: string): boolean {
  return SERVICE_LINK.test(name) || (name.endsWith("_PORT") && SERVICE_LINK_ADDRESS.test(value));
}

function guessSetting(name: string, env: Environment): string | undefined {
  const upper = name.toUpperCase();
  const other = translate(upper);
  // If the setting itself is set, a name such as LOG_LEVEL belongs to another program.
  if (other !== undefined) return PREFIX.test(name) || !isSet(other, env) ? other : undefined;
  const similar = closest(upper, SETTINGS);
  return distance(upper, similar) <= MAX_TYPO_DISTANCE ? similar : undefined;
}

/** The setting that corresponds to another program's name. */
function translate(name: string): string | undefined {
  if (Object.hasOwn(OTHER_NAMES, name)) return OTHER_NAMES[name];
  const file = `${OTHER_NAMES[name.replace(/_FILE$/, "")]}_FILE`;
  return SETTINGS.includes(file) ? file : undefined;
}

function isSet(setting: string, env: Environment): boolean {
  const plain = setting.replace(/_FILE$/, "");
  return [plain, `${plain}_FILE`].some((name) => env[name]);
}
