/**
 * A subscriber that keeps all messages that it receives from a broker.
 */
import type { MqttClient } from "mqtt";
import { type BrokerAddress, type ClientOptions, closeClient, openClient } from "./mqtt_client.ts";
import { waitUntil } from "./poll.ts";

/** How {@linkcode subscribe} subscribes. */
export interface SubscribeOptions extends ClientOptions {
  /** `#` by default. */
  readonly filter?: string;
  /** 2 by default. */
  readonly qos?: 0 | 1 | 2;
}

/** A message as it was received. */
export interface ReceivedMessage {
  readonly topic: string;
  readonly payload: string;
  readonly qos: number;
  readonly retain: boolean;
}

/** Subscribes and resolves when the broker has granted it. The caller disposes the subscriber. */
export async function subscribe(
  broker: BrokerAddress,
  options: SubscribeOptions = {},
): Promise<TestSubscriber> {
  const messages: ReceivedMessage[] = [];
  const decoder = new TextDecoder();
  const client = await openClient(broker, {
    ...options,
    onMessage: (topic, payload, { qos, retain }) => {
      messages.push({ topic, payload: decoder.decode(payload), qos, retain });
    },
  });
  await client.subscribeAsync(options.filter ?? "#", { qos: options.qos ?? 2 });
  return new TestSubscriber(client, messages);
}

/** A subscription, and all messages received so far. */
export class TestSubscriber implements AsyncDisposable {
  readonly messages: readonly ReceivedMessage[];
  readonly #client: MqttClient;

  /** Use {@linkcode subscribe}. */
  constructor(client: MqttClient, messages: readonly ReceivedMessage[]) {
    this.messages = messages;
    this.#client = client;
  }

  /** Waits until `count` messages have been received. */
  async waitForCount(count: number, timeoutMs: number = 60_000): Promise<void> {
    const what = `${count} messages`;
    await waitUntil(() => this.messages.length >= count, { timeoutMs, what });
  }

  /** Disconnects; the broker keeps the session if a client id was given. */
  async [Symbol.asyncDispose](): Promise<void> {
    await closeClient(this.#client);
  }
}
