/** Connections to brokers whose answers a test decides, in place of `MqttConnection`. */
import { Buffer } from "node:buffer";
import type { MqttConfig } from "../../lib/config/mqtt.ts";
import { DEFAULT_TUNING } from "../../lib/config/tuning.ts";
import { Delivery, type QoS } from "../../lib/message/delivery.ts";
import type { BrokerLimits } from "../../lib/mqtt/broker_limits.ts";
import type {
  BrokerConnection,
  MqttConnectionOptions,
  Subscription,
} from "../../lib/mqtt/connection.ts";
import type { SubscriptionStore } from "../../lib/mqtt/stale_subscriptions.ts";

/** A configuration with one broker, one filter and a persistent session. */
export function mqttConfig(changes: Partial<MqttConfig> = {}): MqttConfig {
  return {
    ...{ endpoints: [{ host: "broker", port: 1883 }], clientId: "logger", tls: undefined },
    ...{ user: undefined, password: undefined, filters: ["kraken/#"], qos: 1 },
    ...{ protocolVersion: 5, sharedGroup: undefined, tuning: DEFAULT_TUNING },
    ...changes,
  };
}

/** Limits of a broker that keeps everything, and had no session of this client. */
const LIMITS: BrokerLimits = {
  sessionPresent: false,
  sessionExpirySeconds: 60 * 24 * 3600,
  sharedSubscriptions: true,
  wildcardSubscriptions: true,
};

/** Opens connections, and records them. */
export class FakeBrokers {
  readonly connections: FakeConnection[] = [];
  /** All calls in the order in which they were made, of the brokers and of `recordingStore`. */
  readonly calls: string[] = [];
  /** Called before a connection is opened; may throw. */
  onOpen: (options: MqttConnectionOptions) => void | Promise<void> = () => {};
  /** The granted QoS of a filter, or the reason of the refusal. */
  grant: (filter: string) => QoS | string = () => 1;
  /** The filters that the session has besides the configured ones. */
  stale: readonly string[] = [];
  /** What the next connections announce. */
  limits: Partial<BrokerLimits> = {};

  readonly open = async (options: MqttConnectionOptions): Promise<FakeConnection> => {
    const { host } = options.endpoint;
    this.calls.push(`open ${host}`);
    await this.onOpen(options);
    const connection = new FakeConnection(this, options);
    this.connections.push(connection);
    return connection;
  };

  /** The last connection. */
  get last(): FakeConnection {
    const connection = this.connections.at(-1);
    if (connection === undefined) throw new Error("no connection was opened");
    return connection;
  }

  /** A store that records its calls among those of the brokers. */
  recordingStore(filters: readonly string[] = []): SubscriptionStore {
    let stored = [...filters];
    return {
      filters: () => stored,
      add: (added) => {
        this.calls.push(`add ${added.join(" ")}`);
        stored = [...new Set([...stored, ...added])];
      },
      keepOnly: (kept) => {
        this.calls.push(`keepOnly ${kept.join(" ")}`);
        stored = stored.filter((filter) => kept.includes(filter));
      },
    };
  }
}

/** How a connection ends. */
export interface FakeEnd {
  readonly takenOver?: boolean;
  /** Whether the broker gave no reason. */
  readonly unexplained?: boolean;
}

/** An open connection; `deliver` and `end` do what the broker would do. */
export class FakeConnection implements BrokerConnection {
  readonly endpoint: MqttConnectionOptions["endpoint"];
  readonly protocolVersion: MqttConnectionOptions["protocolVersion"];
  readonly closed: Promise<string>;
  readonly limits: BrokerLimits;
  /** Deliveries that are to be acknowledged on this connection, and those that were. */
  readonly registered: Delivery[] = [];
  readonly acknowledged: Delivery[] = [];
  /** How often there may have been room again for more messages. */
  resumed = 0;
  takenOver = false;
  endedUnexplained = false;
  readonly #brokers: FakeBrokers;
  readonly options: MqttConnectionOptions;
  readonly #closed = Promise.withResolvers<string>();

  constructor(brokers: FakeBrokers, options: MqttConnectionOptions) {
    this.#brokers = brokers;
    this.options = options;
    this.endpoint = options.endpoint;
    this.protocolVersion = options.protocolVersion;
    this.limits = { ...LIMITS, ...brokers.limits };
    this.closed = this.#closed.promise;
  }

  /** The broker sends a message; returns the delivery that was made of it. */
  deliver(topic: string, { payload = topic, qos = 1 }: FakeMessage = {}): Delivery {
    const delivery = new Delivery(topic, Buffer.from(payload), { qos });
    this.options.onMessage(delivery, (accepted) => {
      this.registered.push(accepted);
      accepted.onSafe = () => this.acknowledged.push(accepted);
    });
    return delivery;
  }

  /** The connection ends. */
  end(reason: string, { takenOver = false, unexplained = false }: FakeEnd = {}): void {
    this.takenOver = takenOver;
    this.endedUnexplained = unexplained;
    this.#closed.resolve(reason);
  }

  async subscribe(filters: readonly string[], qos: QoS): Promise<Subscription[]> {
    this.#brokers.calls.push(`subscribe ${filters.join(" ")} ${qos}`);
    await this.#answer();
    return filters.map((filter) => ({ filter, granted: this.#brokers.grant(filter) }));
  }

  async unsubscribe(filters: readonly string[]): Promise<string[]> {
    this.#brokers.calls.push(`unsubscribe ${filters.join(" ")}`);
    await this.#answer();
    const { stale } = this.#brokers;
    return this.protocolVersion === 5 ? filters.filter((filter) => stale.includes(filter)) : [];
  }

  disconnect(): Promise<void> {
    this.#brokers.calls.push("disconnect");
    this.end("disconnected");
    return Promise.resolve();
  }

  destroy(reason: string): void {
    this.end(reason);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.destroy("closed");
    return Promise.resolve();
  }

  abandon(): Delivery[] {
    this.#brokers.calls.push("abandon");
    return this.registered.filter(({ isSafe }) => !isSafe);
  }

  resumeWithRoom(): void {
    this.resumed++;
  }

  /** As the real connection: the answer comes, or the connection ends before it. */
  async #answer(): Promise<void> {
    const reason = await Promise.race([this.closed, Promise.resolve(undefined)]);
    if (reason !== undefined) throw new Error(reason);
  }
}

interface FakeMessage {
  readonly payload?: string;
  readonly qos?: QoS;
}
