/**
 * MQTT clients for the tests: plain MQTT.js, without any code of the logger.
 */
import mqtt, {
  type IClientOptions,
  type IPublishPacket,
  type MqttClient,
  type OnMessageCallback,
} from "mqtt";

/** The broker to connect to. */
export interface BrokerAddress {
  readonly host: string;
  readonly port: number;
  /** Messages of QoS 1 and 2 that a client may have in flight; 20 by default. */
  readonly receiveMaximum?: number;
  /** QoS to publish with if a test sets none; 2 by default. */
  readonly usualQos?: 1 | 2;
}

/** How the client connects. */
export interface ClientOptions {
  /** If it is set, the broker keeps the session. By default a random one without a session. */
  readonly clientId?: string;
  readonly username?: string;
  readonly password?: string;
  /** 4 (MQTT 3.1.1) by default. */
  readonly protocolVersion?: 4 | 5;
  /** Reconnects after this time, and resends unacknowledged messages; never by default. */
  readonly reconnectMs?: number;
}

/** Listeners that {@linkcode openClient} adds before the first packet. */
export interface ClientListeners {
  /** A broker may deliver the queued messages of a session right after the CONNACK. */
  readonly onMessage?: OnMessageCallback;
  /** Receives each PUBLISH on arrival; `onMessage` receives one of QoS 2 only after its PUBREL. */
  readonly onPublish?: (packet: IPublishPacket) => void;
}

/**
 * Connects and waits for the CONNACK. The caller closes the client.
 *
 * @throws {Error} when the broker is unavailable or refuses the connection.
 */
export async function openClient(
  broker: BrokerAddress,
  options: ClientOptions & ClientListeners = {},
): Promise<MqttClient> {
  const { clientId, reconnectMs = 0, protocolVersion = 4, username, password } = options;
  const settings: IClientOptions = {
    protocol: "mqtt",
    host: broker.host,
    port: broker.port,
    protocolVersion,
    reconnectPeriod: reconnectMs,
    clientId: clientId ?? `test-${crypto.randomUUID().slice(0, 18)}`,
    clean: clientId === undefined,
    // The other variants depend on the environment; this one uses plain timers.
    timerVariant: "native",
    connectTimeout: 10_000,
  };
  if (username !== undefined) {
    settings.username = username;
  }
  if (password !== undefined) {
    settings.password = password;
  }
  if (protocolVersion === 5 && clientId !== undefined) {
    settings.properties = { sessionExpiryInterval: 0xffffffff };
  }
  const client = mqtt.connect(settings);
  // Without a listener, the error of a connection that is lost later would end the test run.
  client.on("error", () => {});
  // The stream may emit an error after the client has removed its listener.
  client.on("connect", () => client.stream.on("error", () => {}));
  if (options.onMessage !== undefined) {
    client.on("message", options.onMessage);
  }
  const { onPublish } = options;
  if (onPublish !== undefined) {
    client.on("packetreceive", (packet) => packet.cmd === "publish" && onPublish(packet));
  }
  try {
    await waitForConnect(client);
  } catch (error) {
    await closeClient(client);
    throw error;
  }
  return client;
}

/** Disconnects from the broker; if the connection is lost already, only closes it. */
export async function closeClient(client: MqttClient): Promise<void> {
  // If the stream has failed and the client has not noticed yet, a DISCONNECT would wait forever.
  await client.endAsync(!client.connected || client.stream.destroyed);
}

async function waitForConnect(client: MqttClient): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    client.once("connect", () => resolve());
    client.once("error", reject);
    client.once("close", () => reject(new Error("Connecting to the broker: connection closed")));
  });
}
