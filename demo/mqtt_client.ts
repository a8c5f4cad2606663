/** MQTT connections of the demonstration, other than the logger's own. */

import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import type { MqttConfig } from "../lib/config/config.ts";

const CONNECT_TIMEOUT_MS = 10_000;

export interface ConnectOptions {
  readonly clientId: string;
  /** Whether the session begins empty and ends with the connection. */
  readonly clean: boolean;
}

/**
 * Connects to the first of the configured endpoints, and again by itself when the connection is
 * lost later. The caller disconnects.
 *
 * @throws {Error} when the broker cannot be reached or refuses.
 */
export async function connect(config: MqttConfig, options: ConnectOptions): Promise<MqttClient> {
  const { endpoints: [endpoint], user, password } = config;
  if (endpoint === undefined) throw new TypeError("no broker to connect to");
  const settings: IClientOptions = {
    ...options,
    protocol: "mqtt",
    host: endpoint.host,
    port: endpoint.port,
    connectTimeout: CONNECT_TIMEOUT_MS,
    // The other variants guess at the environment; this one is plain timers.
    timerVariant: "native",
    ...(user !== undefined && { username: user }),
    ...(password !== undefined && { password }),
  };
  const client = mqtt.connect(settings);
  // Without a listener, the error of a connection that is lost later would end the program.
  client.on("error", () => {});
  try {
    await new Promise<void>((resolve, reject) => {
      const noAnswer = new Error("it does not answer, or not in MQTT");
      client.once("connect", () => resolve());
      client.once("error", (error) => reject(/connack/.test(error.message) ? noAnswer : error));
      client.once("close", () => reject(noAnswer));
    });
  } catch (error) {
    await client.endAsync(true);
    throw error;
  }
  return client;
}

/**
 * Says goodbye where there is somebody to say it to. What is still on its way to the broker is
 * waited for, or given up with `force`.
 */
export async function disconnect(client: MqttClient, force: boolean = false): Promise<void> {
  await client.endAsync(force || !client.connected);
}

/**
 * Makes the broker keep messages for the logger before the logger has connected for the first
 * time: the first readings wait for it, and none is published to nobody.
 *
 * @throws {Error} when the broker cannot be reached or refuses.
 */
export async function createSession(config: MqttConfig): Promise<void> {
  const { clientId = "", filters, qos } = config;
  const client = await connect(config, { clientId, clean: false });
  try {
    await client.subscribeAsync([...filters], { qos });
  } finally {
    await disconnect(client);
  }
}

/**
 * Makes the broker forget the session of the logger, which it would otherwise keep for weeks.
 *
 * @throws {Error} when the broker cannot be reached or refuses.
 */
export async function forgetSession({ clientId = "", ...config }: MqttConfig): Promise<void> {
  await disconnect(await connect({ clientId, ...config }, { clientId, clean: true }));
}
