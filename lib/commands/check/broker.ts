/** What `check` examines about a broker. */

import { sleep } from "../../common/backoff.ts";
import { describeError } from "../../common/error_text.ts";
import type { Report } from "./findings.ts";
import type { MqttConfig } from "../../config/config.ts";
import { describeEndpoint, type Endpoint } from "../../common/endpoint.ts";
import type { Delivery } from "../../message/delivery.ts";
import {
  MqttConnection,
  SESSION_EXPIRY_SECONDS,
  type Subscription,
} from "../../mqtt/connection.ts";
import { connectNewest } from "../../mqtt/connect.ts";
import { decodeReading, PayloadError, type ReadingColumns } from "../../message/reading.ts";
import { isMatch } from "../../message/topic_filter.ts";

/** How long to listen for messages. */
const LISTEN_MS = 2_000;

/** Time for everything. */
const DEADLINE_MS = 30_000;

/** Where Mosquitto and others tell their version, and how long to wait for it. */
const VERSION_TOPIC = "$SYS/broker/version";
const VERSION_MS = 500;

export interface CheckBrokerOptions {
  readonly endpoint: Endpoint;
  /** What the database can hold; undefined where that is not known. */
  readonly columns: ReadingColumns | undefined;
  readonly report: Report;
}

/** Reports on connection, session, subscriptions and on what is being published. */
export async function checkBroker(config: MqttConfig, options: CheckBrokerOptions): Promise<void> {
  const { endpoint, report } = options;
  const subject = `Broker ${describeEndpoint(endpoint)}`;
  const received: Delivery[] = [];
  const shared: Delivery[] = [];
  const connections: MqttConnection[] = [];
  const deadline = setTimeout(() => {
    for (const connection of connections) {
      connection.destroy("it keeps the connection, but does not answer");
    }
  }, DEADLINE_MS);
  try {
    const connection = await open(config, endpoint, received);
    connections.push(connection);
    const version = connection.protocolVersion === 5 ? "MQTT 5" : "MQTT 3.1.1";
    const encryption = config.tls === undefined ? "not encrypted" : "encrypted";
    report({ level: "ok", text: `${subject}: connected with ${version}, ${encryption}.` });
    checkSession(config, connection, report);
    if (config.sharedGroup !== undefined) {
      const member = await open(config, endpoint, shared);
      connections.push(member);
      await member.subscribe(config.filters.map(toOwnGroup), config.qos);
    }
    await checkSubscriptions(config, connection, report);
    await sleep(LISTEN_MS, new AbortController().signal);
    const messages = ofSensors(received, config);
    checkMessages(messages, config, options);
    reportLimits(await askVersion(connection, received), report);
    if (config.sharedGroup !== undefined) {
      checkSharing({ messages: messages.length, shared: shared.length }, report);
    }
  } catch (error) {
    report({ level: "problem", text: `${subject}: ${describeError(error)}.` });
  } finally {
    clearTimeout(deadline);
    for (const connection of connections) {
      connection.destroy("checked");
      await connection.closed;
    }
  }
}

/** A group that nobody else is in, and that so takes nothing from others. */
function toOwnGroup(filter: string): string {
  return `$share/kraken-check-${crypto.randomUUID().slice(0, 8)}/${filter}`;
}

/** A broker that does not know shared subscriptions may grant them as topics that nobody uses. */
function checkSharing(counts: { messages: number; shared: number }, report: Report): void {
  if (counts.shared > 0) {
    report({ level: "ok", text: "Shared group: the broker knows shared subscriptions." });
  } else if (counts.messages > 0) {
    const text = "Shared group: nothing comes by a shared subscription, which this broker does " +
      "not seem to know. Unset MQTT_SHARED_GROUP, with which the logger would receive nothing.";
    report({ level: "problem", text });
  } else {
    const text = "Shared group: with no messages it cannot be told whether the broker knows " +
      "shared subscriptions.";
    report({ level: "note", text });
  }
}

async function open(
  config: MqttConfig,
  endpoint: Endpoint,
  received: Delivery[],
): Promise<MqttConnection> {
  const attempt = (protocolVersion: 4 | 5): Promise<MqttConnection> =>
    MqttConnection.open({
      endpoint,
      tls: config.tls,
      protocolVersion,
      clientId: `kraken-check-${crypto.randomUUID().slice(0, 8)}`,
      persistent: false,
      user: config.user,
      password: config.password,
      onMessage: (delivery, acknowledge) => {
        acknowledge(delivery);
        received.push(delivery);
      },
      earlierInFlight: () => ({ count: 0, bytes: 0 }),
      tuning: config.tuning,
      signal: new AbortController().signal,
    });
  if (config.protocolVersion !== undefined) return await attempt(config.protocolVersion);
  return await connectNewest(attempt);
}

function checkSession(config: MqttConfig, connection: MqttConnection, report: Report): void {
  const { sharedSubscriptions, wildcardSubscriptions } = connection.limits;
  if (config.clientId === undefined) {
    const text = "Session: MQTT_CLIENT_ID is not set, messages are lost whenever the logger is " +
      "away. Set it to a name that no other client uses.";
    report({ level: "problem", text });
  } else if (connection.protocolVersion === 4) {
    const text = "Session: how long the broker keeps messages for a logger that is away is its " +
      "own setting (Mosquitto: persistent_client_expiration, for ever where it is not set; " +
      "RabbitMQ: mqtt.subscription_ttl, one day where it is not set).";
    report({ level: "note", text });
  } else {
    const days = SESSION_EXPIRY_SECONDS / 86_400;
    const text = `Session: MQTT_CLIENT_ID is set, the broker is asked to keep it for ${days} days.`;
    report({ level: "ok", text });
  }
  if (config.sharedGroup !== undefined && sharedSubscriptions === false) {
    const text = "Shared group: the broker does not support it. Unset MQTT_SHARED_GROUP.";
    report({ level: "problem", text });
  }
  if (!wildcardSubscriptions && config.filters.some((filter) => /[+#]/.test(filter))) {
    const text = "Subscription: the broker does not support wildcards. List the topics in " +
      "MQTT_TOPIC.";
    report({ level: "problem", text });
  }
}

async function checkSubscriptions(
  config: MqttConfig,
  connection: MqttConnection,
  report: Report,
): Promise<void> {
  const filters = config.filters.filter((filter) => !filter.startsWith("$share/"));
  if (filters.length === 0) return;
  for (const result of await connection.subscribe(filters, config.qos)) {
    reportSubscription(result, config, report);
  }
  if (config.qos === 0) {
    const text = "Subscription: with MQTT_QOS=0 messages are lost whenever the connection is " +
      "interrupted. Set MQTT_QOS to 1 or 2.";
    report({ level: "problem", text });
  }
}

function reportSubscription(
  { filter, granted }: Subscription,
  { qos }: MqttConfig,
  report: Report,
): void {
  if (typeof granted === "string") {
    const text = `Subscription '${filter}': refused, ${granted}. Allow it in the broker's access ` +
      "list, or mend MQTT_TOPIC.";
    report({ level: "problem", text });
  } else if (granted === 0 && qos > 0) {
    const text = `Subscription '${filter}': the broker grants only QoS 0, messages are lost ` +
      "whenever the connection is interrupted. Allow QoS 1 at the broker.";
    report({ level: "problem", text });
  } else if (granted < qos) {
    const text = `Subscription '${filter}': QoS ${granted} instead of ${qos}, which loses nothing.`;
    report({ level: "note", text });
  } else {
    report({ level: "ok", text: `Subscription '${filter}': granted with QoS ${granted}.` });
  }
}

/** Last, because some brokers hang up on whoever asks. */
async function askVersion(connection: MqttConnection, received: Delivery[]): Promise<string> {
  try {
    await connection.subscribe([VERSION_TOPIC], 0);
    await sleep(VERSION_MS, new AbortController().signal);
  } catch {
    return ""; // It does not say.
  }
  return received.find(({ topic }) => topic === VERSION_TOPIC)?.payload.toString() ?? "";
}

/** Mosquitto's limits cannot be asked for, and the most dangerous one is its default. */
function reportLimits(version: string, report: Report): void {
  if (!/mosquitto/i.test(version)) return;
  const text = `Broker limits: ${version} drops what exceeds max_queued_messages for a logger ` +
    "that is away or slow; its default is 1000, which 60 messages/s fill in 16 s. Set " +
    "max_queued_messages in mosquitto.conf to the messages of the longest absence, and " +
    "persistence to true.";
  report({ level: "note", text });
}

function ofSensors(received: readonly Delivery[], { filters }: MqttConfig): Delivery[] {
  return received.filter(({ topic }) => filters.some((filter) => isMatch(filter, topic)));
}

function checkMessages(
  messages: readonly Delivery[],
  config: MqttConfig,
  { columns, report }: CheckBrokerOptions,
): void {
  const seconds = LISTEN_MS / 1000;
  if (messages.length === 0) {
    const text = `Messages: none within ${seconds} s. If sensors publish, compare their topics ` +
      `with MQTT_TOPIC (${config.filters.join(",")}), and see that the broker's access list ` +
      "lets this user read them.";
    return report({ level: "note", text });
  }
  if (columns === undefined) {
    return report({ level: "ok", text: `Messages: ${messages.length} within ${seconds} s.` });
  }
  const rejections = messages.flatMap(({ topic, payload }) => {
    try {
      decodeReading(payload, columns);
      return [];
    } catch (error) {
      if (error instanceof PayloadError) return [`'${topic}': ${error.message}`];
      throw error;
    }
  });
  const count = `${messages.length} within ${seconds} s`;
  report(
    rejections.length === 0 ? { level: "ok", text: `Messages: ${count}, all of them readings.` } : {
      level: "note",
      text: `Messages: ${count}, of which ${rejections.length} would be rejected, for ` +
        `example on ${rejections[0]}.`,
    },
  );
}
