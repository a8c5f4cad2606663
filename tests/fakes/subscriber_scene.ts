/** A subscriber with fake brokers, in fake time. */
import assert from "node:assert/strict";
import type { MqttConfig } from "../../lib/config/mqtt.ts";
import type { Delivery } from "../../lib/message/delivery.ts";
import type { SubscriptionStore } from "../../lib/mqtt/stale_subscriptions.ts";
import { MqttSubscriber } from "../../lib/mqtt/subscriber.ts";
import { captureLog, withoutTime } from "../support/captured_log.ts";
import { FakeBrokers, mqttConfig } from "./fake_connections.ts";
import { FakeTime } from "./fake_time.ts";

export interface SubscriberSceneOptions {
  readonly config?: Partial<MqttConfig>;
  /** The filters of a store, which records its calls; without it there is no store. */
  readonly stored?: readonly string[];
}

/** The parts; the caller ends the scene with `end`, and disposes it. */
export class SubscriberScene implements Disposable {
  readonly time = new FakeTime();
  readonly brokers = new FakeBrokers();
  /** The deliveries that were passed on. */
  readonly received: Delivery[] = [];
  redelivered = 0;
  readonly subscriber: MqttSubscriber;
  readonly store: SubscriptionStore | undefined;
  /** Called for each delivery that is passed on. */
  onDelivery: (delivery: Delivery) => void = () => {};
  readonly #lines = captureLog();
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor({ config, stored }: SubscriberSceneOptions = {}) {
    this.store = stored && this.brokers.recordingStore(stored);
    this.subscriber = new MqttSubscriber(mqttConfig(config), {
      onDelivery: (delivery) => {
        this.onDelivery(delivery);
        this.received.push(delivery);
      },
      onRedelivered: () => this.redelivered++,
      store: this.store,
      open: this.brokers.open,
    });
  }

  /** What the log has at these levels, without times. */
  lines(...levels: readonly string[]): string[] {
    return this.#lines.map(withoutTime).filter((line) => levels.includes(line.split(" ")[0] ?? ""));
  }

  /** Starts the subscriber, and lets it do what it can. */
  async start(): Promise<void> {
    this.#running = this.subscriber.run(this.#stop.signal);
    await this.time.pass(0);
  }

  /** Aborts the subscriber, and waits until `run` has ended. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  /** Stops and disconnects, which must leave no timer. */
  async end(): Promise<void> {
    await this.stop();
    await this.subscriber.disconnect();
    assert.equal(this.time.pending, 0);
  }

  [Symbol.dispose](): void {
    this.time[Symbol.dispose]();
  }
}
