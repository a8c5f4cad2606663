/**
 * A publisher that behaves like the acquisition daemons: sensors go on measuring while the broker is
 * away, and a message is kept until the broker has taken it over, be it at the tenth attempt.
 */
import { Buffer } from "node:buffer";
import type { MqttClient } from "mqtt";
import { type BrokerAddress, closeClient, openClient } from "./mqtt_client.ts";
import { delay, waitUntil } from "./poll.ts";

/** What a {@linkcode Daemon} publishes. */
export interface DaemonOptions {
  readonly qos: 1 | 2;
  /** Messages that fall due each second, whether the broker is there or not. */
  readonly rate: number;
  /** The message of a number, always the same one; numbers count from 0. */
  readonly message: (index: number) => DaemonMessage;
}

/** A message to publish. */
export interface DaemonMessage {
  readonly topic: string;
  readonly payload: string | Uint8Array;
}

/** Time between two looks whether something is due. */
const PACE_MS = 5;

/** Time between two attempts to connect. */
const RECONNECT_MS = 20;

/** Starts a daemon. The caller disposes it. */
export function startDaemon(broker: BrokerAddress, options: DaemonOptions): Daemon {
  return new Daemon(broker, options);
}

/** A daemon at work, until it is told to finish or disposed. */
export class Daemon implements AsyncDisposable {
  readonly #broker: BrokerAddress;
  readonly #options: DaemonOptions;
  readonly #startMs = performance.now();
  /** Numbers that were published and that the broker has not taken over, the oldest first. */
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
    // Held, so that a failure is thrown to whoever asks rather than to nobody.
    this.#running = this.#run().catch((error) => {
      this.#failure = error;
    });
  }

  /** Messages that have fallen due so far. */
  get due(): number {
    const elapsedSeconds = (performance.now() - this.#startMs) / 1000;
    return Math.min(this.#limit, Math.floor(elapsedSeconds * this.#options.rate));
  }

  /**
   * Messages that the broker has taken over: PUBACK or PUBCOMP has come.
   *
   * @throws what ended the daemon, if anything has.
   */
  get acknowledged(): number {
    if (this.#failure !== undefined) throw this.#failure;
    return this.#next - this.#kept.size;
  }

  /** Messages that were published and that the broker has not taken over. */
  get open(): number {
    return this.#next - this.acknowledged;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Publishes nothing that is new until {@linkcode resume}; the measuring goes on. */
  pause(): void {
    this.#isPaused = true;
  }

  /** Goes on, beginning with what has fallen due meanwhile. */
  resume(): void {
    this.#isPaused = false;
  }

  /** Connections to the broker so far. */
  get connections(): number {
    return this.#connections;
  }

  /** Messages published again, since a connection ended before the broker had taken them over. */
  get repetitions(): number {
    return this.#repetitions;
  }

  /**
   * Ends the measuring after so many messages, or with those that are due now, and waits until the
   * broker has taken all of them over; returns how many there were.
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

  /** Publishes what was kept, then what falls due, until the connection ends. */
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

  /** The next number that is due; undefined where none is. */
  #take(): number | undefined {
    if (this.#isPaused || this.#next >= this.due) return undefined;
    this.#kept.add(this.#next);
    return this.#next++;
  }
}
