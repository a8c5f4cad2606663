/**
 * A publisher that behaves like the acquisition daemons: sensors measure also while the broker is
 * unavailable, and each message is kept and repeated until the broker has acknowledged it.
 */
import { Buffer } from "node:buffer";
import type { MqttClient } from "mqtt";
import { type BrokerAddress, closeClient, openClient } from "./mqtt_client.ts";
import { delay, waitUntil } from "./poll.ts";

/** The messages of a {@linkcode Daemon}. */
export interface DaemonOptions {
  readonly qos: 1 | 2;
  /** Messages that become due each second, also while the broker is unavailable. */
  readonly rate: number;
  /** Returns the message of an index, always the same; indexes start at 0. */
  readonly message: (index: number) => DaemonMessage;
}

/** A message to publish. */
export interface DaemonMessage {
  readonly topic: string;
  readonly payload: string | Uint8Array;
}

/** Time between two checks for messages that are due. */
const PACE_MS = 5;

/** Time between two attempts to connect. */
const RECONNECT_MS = 20;

/** Starts a daemon. The caller disposes it. */
export function startDaemon(broker: BrokerAddress, options: DaemonOptions): Daemon {
  return new Daemon(broker, options);
}

/** Publishes until `finish` is called or it is disposed. */
export class Daemon implements AsyncDisposable {
  readonly #broker: BrokerAddress;
  readonly #options: DaemonOptions;
  readonly #startMs = performance.now();
  /** Indexes of published messages that the broker has not acknowledged, the oldest first. */
  readonly #kept = new Set<number>();
  readonly #running: Promise<void>;
  #next = 0;
  #limit = Infinity;
  #isPaused = false;
  #connections = 0;
  #repetitions = 0;
  #disposed = false;
  #failure: unknown;

  /** Use {@linkcode startDaemon}. */
  constructor(broker: BrokerAddress, options: DaemonOptions) {
    this.#broker = broker;
    this.#options = options;
    // Kept, so that the next call throws the failure.
    this.#running = this.#run().catch((error) => {
      this.#failure = error;
    });
  }

  /** Messages that have become due so far. */
  get due(): number {
    const elapsedSeconds = (performance.now() - this.#startMs) / 1000;
    return Math.min(this.#limit, Math.floor(elapsedSeconds * this.#options.rate));
  }

  /**
   * Messages that the broker has acknowledged by PUBACK or PUBCOMP.
   *
   * @throws the error that ended the daemon, if there was one.
   */
  get acknowledged(): number {
    if (this.#failure !== undefined) throw this.#failure;
    return this.#next - this.#kept.size;
  }

  /** Messages that were published and that the broker has not acknowledged. */
  get open(): number {
    return this.#next - this.acknowledged;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Publishes no new messages until {@linkcode resume}; messages still become due. */
  pause(): void {
    this.#isPaused = true;
  }

  /** Continues with the messages that have become due meanwhile. */
  resume(): void {
    this.#isPaused = false;
  }

  /** Connections to the broker so far. */
  get connections(): number {
    return this.#connections;
  }

  /** Messages published again because a connection ended before their acknowledgement. */
  get repetitions(): number {
    return this.#repetitions;
  }

  /**
   * Stops after `count` messages, by default those that are due now, and waits until the broker has
   * acknowledged all of them. Returns their number.
   */
  async finish(count: number = this.due, { timeoutMs = 180_000 } = {}): Promise<number> {
    this.#limit = Math.max(count, this.#next);
    await waitUntil(() => this.acknowledged >= this.#limit, {
      timeoutMs,
      what: `${this.#limit} messages to be acknowledged`,
    });
    await this[Symbol.asyncDispose]();
    return this.#limit;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#disposed) {
      const client = await openClient(this.#broker).catch(() => undefined);
      if (client === undefined) {
        await delay(RECONNECT_MS);
        continue;
      }
      this.#connections++;
      try {
        await this.#publish(client);
      } finally {
        await closeClient(client);
      }
    }
  }

  /** Publishes the kept messages, then those that become due, until the connection ends. */
  async #publish(client: MqttClient): Promise<void> {
    const { qos, message } = this.#options;
    const maxOpen = this.#broker.receiveMaximum ?? 20;
    const again = [...this.#kept].values();
    let open = 0;
    let isClosed = false;
    client.once("close", () => isClosed = true);
    while (!this.#disposed && !isClosed) {
      while (open < maxOpen) {
        const index = again.next().value ?? this.#take();
        if (index === undefined) break;
        open++;
        const { topic, payload } = message(index);
        const data = typeof payload === "string" ? payload : Buffer.from(payload);
        client.publish(topic, data, { qos }, (error) => {
          open--;
          if (!error) this.#kept.delete(index);
        });
      }
      await delay(PACE_MS);
    }
    this.#repetitions += this.#kept.size;
  }

  /** The next index that is due; undefined if none is. */
  #take(): number | undefined {
    if (this.#isPaused || this.#next >= this.due) return undefined;
    this.#kept.add(this.#next);
    return this.#next++;
  }
}
