/**
 * MQTT clients for the tests, on MQTT.js as it comes, without anything of the logger's.
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
  /** Messages of QoS 1 and 2 that the broker lets one client have open; 20 by default. */
  readonly receiveMaximum?: number;
  /** QoS to publish with where a test does not say; 2 by default. */
  readonly usualQos?: 1 | 2;
}

/** How the client connects. */
export interface ClientOptions {
  /** A random one by default. With one, the session is kept by the broker. */
  readonly clientId?: string;
  readonly username?: string;
  readonly password?: string;
  /** 4 (MQTT 3.1.1) by default. */
  readonly protocolVersion?: 4 | 5;
  /** Connects again after this time, and sends again what was not acknowledged; never by default. */
  readonly reconnectMs?: number;
}

/** What {@linkcode openClient} listens to from the first packet on. */
export interface ClientListeners {
  /** A broker may deliver what it kept for the session right after its consent. */
  readonly onMessage?: OnMessageCallback;
  /** Gets each message when it comes; `onMessage` gets one of QoS 2 at the end of its handover. */
  readonly onPublish?: (packet: IPublishPacket) => void;
}

/**
 * Connects and waits for the broker's consent. The caller closes the client.
 *
 * @throws {Error} when the broker is away or refuses.
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
    // The other variants guess at the environment; this one is plain timers.
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
  // Nor must one that its stream tells of when the client has stopped listening.
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

/** Says goodbye to the broker, or gives up the connection if that is what is left to do. */
export async function closeClient(client: MqttClient): Promise<void> {
  // A stream breaks before the client takes note of it; then a polite end would wait for ever.
  await client.endAsync(!client.connected || client.stream.destroyed);
}

async function waitForConnect(client: MqttClient): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    client.once("connect", () => resolve());
    client.once("error", reject);
    client.once("close", () => reject(new Error("Connecting to the broker: connection closed")));
  });
}
