/** The MQTT connections of the demo, except the logger's. */

import type { MqttConfig } from "../lib/config/mqtt.ts";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";

const CONNECT_TIMEOUT_MS = 10_000;

/** The peer accepts TCP connections but does not answer in MQTT. */
export class NoMqttError extends Error {
  override readonly name = "NoMqttError";

  constructor() {
    super("no answer in MQTT");
  }
}

/** How to connect. */
export interface ConnectOptions {
  readonly clientId: string;
  /** Whether the session starts empty and ends with the connection. */
  readonly clean: boolean;
}

/**
 * Connects to the first configured endpoint. The client reconnects when it loses the connection
 * later. The caller disconnects.
 *
 * @throws {Error} if the broker cannot be reached or refuses the connection.
 */
export async function connect(config: MqttConfig, options: ConnectOptions): Promise<MqttClient> {
  const { endpoints: [endpoint], user, password } = config;
  if (endpoint === undefined) throw new TypeError("Connecting: no endpoint is configured");
  const settings: IClientOptions = {
    ...options,
    protocol: "mqtt",
    host: endpoint.host,
    port: endpoint.port,
    connectTimeout: CONNECT_TIMEOUT_MS,
    // The other variants guess the environment; this one uses the plain timers.
    timerVariant: "native",
    ...(user !== undefined && { username: user }),
    ...(password !== undefined && { password }),
  };
  const client = mqtt.connect(settings);
  // Without a listener, an error of an established connection would end the program.
  client.on("error", () => {});
  try {
    await new Promise<void>((resolve, reject) => {
      const noAnswer = new NoMqttError();
      client.once("connect", () => resolve());
      // Errors of the system and refusals have codes; others are bytes that are not MQTT, or a timeout.
      client.once("error", (error) => reject("code" in error ? error : noAnswer));
      client.once("close", () => reject(noAnswer));
    });
  } catch (error) {
    await client.endAsync(true);
    throw error;
  }
  return client;
}

/**
 * Disconnects. Waits for messages in flight, unless `force` is set or the connection is lost: then
 * it drops them.
 */
export async function disconnect(client: MqttClient, force: boolean = false): Promise<void> {
  await client.endAsync(force || !client.connected);
}

/**
 * Creates the session of the logger before the logger connects, so that the broker queues the first
 * readings and drops none.
 *
 * @throws {Error} if the broker cannot be reached or refuses.
 */
export async function createSession(config: MqttConfig): Promise<void> {
  const { clientId = "", filters, qos } = config;
  const client = await connect(config, { clientId, clean: false });
  try {
    await client.subscribeAsync([...filters], { qos });
  } catch (error) {
    await disconnect(client);
    await removeSession(config);
    throw error;
  }
  await disconnect(client);
}

/**
 * Removes the session of the logger, which the broker would otherwise keep for weeks.
 *
 * @throws {Error} if the broker cannot be reached or refuses.
 */
export async function removeSession({ clientId = "", ...config }: MqttConfig): Promise<void> {
  await disconnect(await connect({ clientId, ...config }, { clientId, clean: true }));
}
