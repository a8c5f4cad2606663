/** The settings of the broker. */

import type { Endpoint } from "../common/endpoint.ts";
import type { QoS } from "../message/delivery.ts";
import { isTopicFilter, TOPIC_FILTER_RULE } from "../message/topic_filter.ts";
import { type Certificates, parseCertificates } from "./certificate_files.ts";
import { mayHoldLogin, type Settings } from "./settings.ts";
import type { Tuning } from "./tuning.ts";

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

/** Reads the settings; their problems are collected in `settings`. */
export function parseMqtt(settings: Settings): MqttConfig {
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

/** Splits a comma-separated list; an empty text has no element. */
function list(text: string): string[] {
  return text === "" ? [] : text.split(",").map((element) => element.trim());
}
