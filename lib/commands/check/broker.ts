/** The part of `check` about a broker. */

import { onAbort } from "../../common/abort.ts";
import { sleep } from "../../common/backoff.ts";
import { describeError } from "../../common/error_text.ts";
import type { MqttConfig } from "../../config/mqtt.ts";
import { SESSION_EXPIRY_SECONDS } from "../../mqtt/broker_limits.ts";
import type { ReportFinding } from "./findings.ts";
import { describeEndpoint, type Endpoint } from "../../common/endpoint.ts";
import type { Delivery } from "../../message/delivery.ts";
import { MqttConnection, type Subscription } from "../../mqtt/connection.ts";
import { connectNewest } from "../../mqtt/connect.ts";
import { decodeReading, PayloadError, type ReadingColumns } from "../../message/reading.ts";
import { isMatch } from "../../message/topic_filter.ts";

/** How long to listen for messages. */
const LISTEN_MS = 2_000;

/** Time limit for the whole check of one broker. */
const DEADLINE_MS = 30_000;

/** Topic on which Mosquitto and others publish their version, and how long to wait for it. */
const VERSION_TOPIC = "$SYS/broker/version";
const VERSION_MS = 500;

/** Which broker to check, against which columns, and where to report. */
export interface CheckBrokerOptions {
  readonly endpoint: Endpoint;
  /** Types of the columns; undefined if the database could not be read. */
  readonly columns: ReadingColumns | undefined;
  readonly report: ReportFinding;
}

/** Reports on connection, session, subscriptions, and the messages published meanwhile. */
export async function checkBroker(config: MqttConfig, options: CheckBrokerOptions): Promise<void> {
  const { endpoint, report } = options;
  const subject = `Broker ${describeEndpoint(endpoint)}`;
  const received: Delivery[] = [];
  const shared: Delivery[] = [];
  const deadline = new AbortController();
  const timer = setTimeout(() => deadline.abort(), DEADLINE_MS);
  const { signal } = deadline;
  try {
    await using connection = await open(config, { endpoint, received, signal });
    const version = connection.protocolVersion === 5 ? "MQTT 5" : "MQTT 3.1.1";
    const encryption = config.tls === undefined ? "not encrypted" : "encrypted";
    report({ level: "ok", text: `${subject}: connected with ${version}, ${encryption}.` });
    checkSession(config, connection, report);
    await using member = config.sharedGroup === undefined
      ? undefined
      : await open(config, { endpoint, received: shared, signal });
    await member?.subscribe(config.filters.map(toOwnGroup), config.qos);
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
    clearTimeout(timer);
  }
}

/** A group with no other member, so that it takes no message from another client. */
function toOwnGroup(filter: string): string {
  return `$share/kraken-check-${crypto.randomUUID().slice(0, 8)}/${filter}`;
}

/**
 * Only a message proves that the broker supports shared subscriptions: one that does not may grant
 * `$share/…` as an ordinary filter, which matches nothing.
 */
function checkSharing(counts: { messages: number; shared: number }, report: ReportFinding): void {
  if (counts.shared > 0) {
    report({ level: "ok", text: "Shared group: the broker supports shared subscriptions." });
  } else if (counts.messages > 0) {
    const text =
      "Shared group: the broker delivers nothing to a shared subscription and probably " +
      "does not support them. Unset MQTT_SHARED_GROUP: with it, the logger receives nothing.";
    report({ level: "problem", text });
  } else {
    const text =
      "Shared group: not checked, because no message was published. Whether the broker " +
      "supports shared subscriptions is unknown.";
    report({ level: "note", text });
  }
}

interface OpenOptions {
  readonly endpoint: Endpoint;
  /** Receives the messages, which are acknowledged at once. */
  readonly received: Delivery[];
  /** Aborted: the connection is closed, or the attempt given up. */
  readonly signal: AbortSignal;
}

async function open(
  config: MqttConfig,
  { endpoint, received, signal }: OpenOptions,
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
      signal,
    });
  const { protocolVersion } = config;
  const connection = protocolVersion === undefined
    ? await connectNewest(attempt)
    : await attempt(protocolVersion);
  onAbort(signal, () => {
    connection.destroy("the broker keeps the connection open, but does not answer");
  });
  return connection;
}

function checkSession(config: MqttConfig, connection: MqttConnection, report: ReportFinding): void {
  const { sharedSubscriptions, wildcardSubscriptions } = connection.limits;
  if (config.clientId === undefined) {
    const text = "Session: MQTT_CLIENT_ID is not set. Messages published while the logger is not " +
      "connected are lost. Set it to a name that no other client uses.";
    report({ level: "problem", text });
  } else if (connection.protocolVersion === 4) {
    const text = "Session: how long the broker keeps the session of a disconnected logger is a " +
      "setting of the broker (Mosquitto: persistent_client_expiration, forever by default; " +
      "RabbitMQ: mqtt.subscription_ttl, one day by default).";
    report({ level: "note", text });
  } else {
    const days = SESSION_EXPIRY_SECONDS / 86_400;
    const text = `Session: persistent. The logger asks the broker to keep it for ${days} days.`;
    report({ level: "ok", text });
  }
  if (config.sharedGroup !== undefined && sharedSubscriptions === false) {
    const text =
      "Shared group: the broker does not support shared subscriptions. Unset MQTT_SHARED_GROUP.";
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
  report: ReportFinding,
): Promise<void> {
  const filters = config.filters.filter((filter) => !filter.startsWith("$share/"));
  if (filters.length === 0) return;
  for (const result of await connection.subscribe(filters, config.qos)) {
    reportSubscription(result, config, report);
  }
  if (config.qos === 0) {
    const text =
      "Subscription: MQTT_QOS=0 loses messages whenever the connection is interrupted. " +
      "Set MQTT_QOS to 1 or 2.";
    report({ level: "problem", text });
  }
}

function reportSubscription(
  { filter, granted }: Subscription,
  { qos }: MqttConfig,
  report: ReportFinding,
): void {
  if (typeof granted === "string") {
    const text = `Subscription '${filter}': refused, ${granted}. Allow it in the broker's access ` +
      "list, or correct MQTT_TOPIC.";
    report({ level: "problem", text });
  } else if (granted === 0 && qos > 0) {
    const text = `Subscription '${filter}': the broker grants only QoS 0. Messages are lost ` +
      "whenever the connection is interrupted. Allow QoS 1 at the broker.";
    report({ level: "problem", text });
  } else if (granted < qos) {
    const text = `Subscription '${filter}': granted with QoS ${granted} instead of ${qos}. ` +
      `QoS ${granted} loses no message.`;
    report({ level: "note", text });
  } else {
    report({ level: "ok", text: `Subscription '${filter}': granted with QoS ${granted}.` });
  }
}

/** Run last, because some brokers disconnect a client that subscribes to `$SYS`. */
async function askVersion(connection: MqttConnection, received: Delivery[]): Promise<string> {
  try {
    await connection.subscribe([VERSION_TOPIC], 0);
    await sleep(VERSION_MS, new AbortController().signal);
  } catch {
    // The version only selects a hint; a broker without one is checked all the same.
    return "";
  }
  return received.find(({ topic }) => topic === VERSION_TOPIC)?.payload.toString() ?? "";
}

/** Mosquitto's limits cannot be queried, and the default of the most dangerous one loses messages. */
function reportLimits(version: string, report: ReportFinding): void {
  if (!/mosquitto/i.test(version)) return;
  const text = `Broker limits: ${version} drops messages beyond max_queued_messages while the ` +
    "logger is disconnected or slow. Its default of 1000 is reached in 16 s at 60 messages/s. " +
    "In mosquitto.conf, set max_queued_messages to the number of messages in the longest " +
    "expected outage, and persistence to true.";
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
      `with MQTT_TOPIC (${config.filters.join(",")}), and check that the broker's access list ` +
      "allows this user to read them.";
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
    rejections.length === 0 ? { level: "ok", text: `Messages: ${count}, all valid readings.` } : {
      level: "note",
      text: `Messages: ${count}. ${rejections.length} would be rejected, for ` +
        `example on ${rejections[0]}.`,
    },
  );
}
