/**
 * The logger: subscriber, inbox and writer joined, started and stopped in the right order.
 */

import type { Config } from "./config.ts";
import type { Delivery } from "./delivery.ts";
import { Inbox } from "./inbox.ts";
import { FloodGuard, log } from "./log.ts";
import { MqttSubscriber } from "./mqtt_subscriber.ts";
import { shortenPayload } from "./reading.ts";
import { sleep } from "./retry.ts";
import { Statistics } from "./statistics.ts";
import { Writer } from "./writer.ts";

/** Time to commit and acknowledge what is in hand when the logger is told to stop. */
const DRAIN_TIMEOUT_MS = 10_000;

/** Carries readings from the broker to the database from `start` until `stop`. */
export class Logger {
  readonly statistics = new Statistics();
  readonly #inbox = new Inbox();
  readonly #subscriber: MqttSubscriber;
  readonly #writer: Writer;
  readonly #drops = new FloodGuard("QoS 0 messages that were dropped");
  readonly #stopSubscribing = new AbortController();
  readonly #giveUpWriting = new AbortController();
  #subscribing: Promise<void> = Promise.resolve();
  #writing: Promise<void> = Promise.resolve();

  constructor(config: Config) {
    this.#subscriber = new MqttSubscriber(config.mqtt, {
      onDelivery: (delivery) => this.#takeIn(delivery),
      statistics: this.statistics,
    });
    this.#writer = new Writer(config.database, {
      inbox: this.#inbox,
      statistics: this.statistics,
    });
    if (config.mqtt.clientId === undefined) {
      log.warning(
        "MQTT_CLIENT_ID is not set: the broker keeps nothing while the logger is away, so that " +
          "messages are lost at every restart and every interruption of the connection.",
      );
    }
  }

  /** Starts; connections are made in the background. `failed` rejects if that ends by a defect. */
  start(): { readonly failed: Promise<never> } {
    const failed = Promise.withResolvers<never>();
    this.#subscribing = this.#subscriber.run(this.#stopSubscribing.signal);
    this.#writing = this.#writer.run(this.#giveUpWriting.signal);
    this.#subscribing.catch(failed.reject);
    this.#writing.catch(failed.reject);
    return { failed: failed.promise };
  }

  /**
   * Stops taking messages in, commits and acknowledges what is in hand within ten seconds, and
   * disconnects. Returns how many messages could not be finished; those that the broker keeps
   * for this client, it sends again.
   */
  async stop(): Promise<number> {
    this.#subscriber.stopIntake();
    this.#stopSubscribing.abort();
    this.#writer.finish();
    const drained = new AbortController();
    const deadline = sleep(DRAIN_TIMEOUT_MS, drained.signal).then(() =>
      this.#giveUpWriting.abort()
    );
    try {
      await Promise.all([this.#subscribing, this.#writing]);
    } finally {
      drained.abort();
      await deadline;
      await this.#subscriber.disconnect();
      this.#drops.flush();
    }
    return this.statistics.waiting;
  }

  #takeIn(delivery: Delivery): void {
    this.statistics.received++;
    if (log.isDebug()) {
      log.debug(`Received on '${delivery.topic}': ${shortenPayload(delivery.payload)}`);
    }
    if (this.#inbox.push(delivery)) return;
    this.statistics.outcomes.dropped++;
    this.#drops.warning(() =>
      `Dropped a QoS 0 message on '${delivery.topic}': the database does not keep up, and the ` +
      "broker would not send it again"
    );
  }
}
