/**
 * Publishers for the tests, instead of the acquisition daemons.
 */
import { Buffer } from "node:buffer";
import { type BrokerAddress, type ClientOptions, closeClient, openClient } from "./mqtt_client.ts";
import { delay } from "./poll.ts";
import { type Reading, toPayload } from "./readings.ts";

export type { BrokerAddress, ClientOptions } from "./mqtt_client.ts";

/** How messages are published. */
export interface PublishOptions extends ClientOptions {
  /** By default `usualQos` of the broker, mostly 2. */
  readonly qos?: 0 | 1 | 2;
  /** By default `sensors/test/{uuid}/{sid}` for readings and `sensors/test` for payloads. */
  readonly topic?: string;
  readonly retain?: boolean;
  /** Maximum number of unacknowledged messages; by default as many as the broker accepts. */
  readonly maxInflight?: number;
  /** Messages per second; by default as many as possible. */
  readonly rate?: number;
  /** Aborting it ends the publishing; messages in flight are still acknowledged. */
  readonly signal?: AbortSignal;
}

interface Message {
  readonly topic: string;
  readonly payload: string | Uint8Array;
}

/**
 * Publishes readings, many at once, and resolves when the broker has acknowledged all of them.
 *
 * @returns the number of published messages: all, unless `signal` was aborted.
 * @throws the error of the client; that of a lost connection only if `reconnectMs` is not set.
 */
export async function publishReadings(
  broker: BrokerAddress,
  readings: readonly Reading[],
  options: PublishOptions = {},
): Promise<number> {
  const toMessage = (reading: Reading): Message => ({
    topic: options.topic ?? `sensors/test/${reading.uuid}/${reading.sid}`,
    payload: toPayload(reading),
  });
  return await publishAll(broker, readings.values().map(toMessage), options);
}

/** Publishes payloads unchanged; otherwise as {@linkcode publishReadings}. */
export async function publishPayloads(
  broker: BrokerAddress,
  payloads: readonly (string | Uint8Array)[],
  options: PublishOptions = {},
): Promise<number> {
  const { topic = "sensors/test" } = options;
  return await publishAll(
    broker,
    payloads.values().map((payload) => ({ topic, payload })),
    options,
  );
}

async function publishAll(
  broker: BrokerAddress,
  messages: Iterable<Message>,
  options: PublishOptions,
): Promise<number> {
  const { qos = broker.usualQos ?? 2, retain = false, rate, signal } = options;
  // Mosquitto disconnects a client that has more messages in flight than allowed, with MQTT 3.1.1, too.
  const maxInflight = options.maxInflight ?? broker.receiveMaximum ?? 20;
  const client = await openClient(broker, options);
  const window = new PublishWindow();
  if (options.reconnectMs === undefined) {
    client.on("error", (error) => window.fail(error));
    client.on(
      "close",
      () => window.fail(new Error("Publishing: the broker closed the connection")),
    );
  }
  const startMs = performance.now();
  let published = 0;
  try {
    for (const { topic, payload } of messages) {
      const waitMs = rate === undefined ? 0 : startMs + published * 1000 / rate - performance.now();
      if (waitMs > 1) {
        await delay(waitMs);
      }
      await window.waitUntilBelow(maxInflight);
      if (signal?.aborted) {
        break;
      }
      const data = typeof payload === "string" ? payload : Buffer.from(payload);
      window.open();
      client.publish(topic, data, { qos, retain }, (error) => window.close(error));
      published++;
    }
    await window.waitUntilBelow(1);
    return published;
  } finally {
    await closeClient(client);
  }
}

/** Counts the messages in flight, and keeps the first failure. */
class PublishWindow {
  #open = 0;
  #failure: Error | undefined;
  #wake: (() => void) | undefined;

  open(): void {
    this.#open++;
  }

  close(error: Error | null | undefined): void {
    this.#open--;
    if (error) {
      this.fail(error);
    }
    this.#wake?.();
  }

  fail(error: Error): void {
    this.#failure ??= error;
    this.#wake?.();
  }

  /** @throws the first failure. */
  async waitUntilBelow(limit: number): Promise<void> {
    while (this.#open >= limit && this.#failure === undefined) {
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    if (this.#failure !== undefined) {
      throw this.#failure;
    }
  }
}
