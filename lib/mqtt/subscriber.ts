/**
 * The subscriber: keeps one connection to one of the brokers, forever, with the configured
 * subscriptions, and passes on the messages.
 */

import { onAbort } from "../common/abort.ts";
import { sleep } from "../common/backoff.ts";
import { ConnectionState, type ConnectionStatus } from "../common/connection_state.ts";
import { describeEndpoint, type Endpoint } from "../common/endpoint.ts";
import { describeError } from "../common/error_text.ts";
import { log } from "../common/log.ts";
import { Outage } from "../common/outage.ts";
import type { MqttConfig } from "../config/mqtt.ts";
import type { Delivery } from "../message/delivery.ts";
import { connectNewest } from "./connect.ts";
import { type BrokerConnection, MqttConnection, type MqttConnectionOptions } from "./connection.ts";
import { OrphanedMessages } from "./orphaned_messages.ts";
import { ReconnectPolicy } from "./reconnect_policy.ts";
import { SessionWarnings } from "./session_warnings.ts";
import { StaleSubscriptions, type SubscriptionStore } from "./stale_subscriptions.ts";

/** Time between two attempts to get a subscription that the broker refused. */
const REFUSED_RETRY_MS = 60_000;

export interface MqttSubscriberOptions {
  /** Accepts a message that was not received before. Must not throw. */
  readonly onDelivery: (delivery: Delivery) => void;
  /** Called for a message that repeats one that is still in flight. */
  readonly onRedelivered: () => void;
  /** The filters that the session may have from earlier runs; undefined if nothing records them. */
  readonly store: SubscriptionStore | undefined;
  /** Opens a connection; `MqttConnection.open` by default. */
  readonly open?: (options: MqttConnectionOptions) => Promise<BrokerConnection>;
}

/** A broker that did not accept a connection. */
interface Failure {
  readonly endpoint: Endpoint;
  /** Endpoint and reason, without a full stop. */
  readonly text: string;
}

/** Subscribes from `run` until its signal is aborted; `disconnect` then ends the connection. */
export class MqttSubscriber {
  readonly #config: MqttConfig;
  readonly #onDelivery: (delivery: Delivery) => void;
  readonly #onRedelivered: () => void;
  readonly #openConnection: (options: MqttConnectionOptions) => Promise<BrokerConnection>;
  readonly #clientId: string;
  readonly #filters: readonly string[];
  readonly #stale: StaleSubscriptions;
  readonly #warnings: SessionWarnings;
  readonly #outage: Outage;
  readonly #policy: ReconnectPolicy;
  readonly #orphans = new OrphanedMessages(() => this.#connection?.resumeWithRoom());
  /** Brokers that did not accept while a later one of the list did. */
  readonly #skipped = new Set<Endpoint>();
  readonly #state = new ConnectionState();
  #attempts = 0;
  #connection: BrokerConnection | undefined;
  #subscribing: Promise<void> = Promise.resolve();
  #acceptsMessages = true;

  constructor(config: MqttConfig, options: MqttSubscriberOptions) {
    const { store } = options;
    this.#config = config;
    this.#onDelivery = options.onDelivery;
    this.#onRedelivered = options.onRedelivered;
    this.#openConnection = options.open ?? MqttConnection.open;
    this.#clientId = config.clientId ?? randomClientId();
    this.#filters = subscriptionFilters(config);
    this.#stale = new StaleSubscriptions(config, { filters: this.#filters, store });
    this.#warnings = new SessionWarnings(config, {
      hadSession: (store?.filters().length ?? 0) > 0,
    });
    this.#policy = new ReconnectPolicy(config.tuning);
    this.#outage = new Outage(
      `MQTT broker ${config.endpoints.map(describeEndpoint).join(" or ")}`,
    );
  }

  /**
   * Connects, and connects again whenever the connection ends, until `signal` is aborted. The last
   * connection then stays open for the acknowledgements that are still due.
   */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const connection = await this.#connect(signal);
      if (connection === undefined) continue;
      const connectedMs = performance.now();
      this.#connection = connection;
      this.#state.up(`connected to ${describeConnection(connection)}`);
      const confirmation = this.#confirmLater(connection);
      this.#warnings.connected(connection);
      this.#subscribing = this.#subscribe(connection, signal);
      const reason = await endOf(connection, signal);
      clearTimeout(confirmation);
      if (reason === undefined) return;
      this.#connection = undefined;
      this.#state.down(reason);
      this.#warnings.disconnected();
      this.#stale.reset();
      await this.#subscribing;
      this.#orphans.add(connection.abandon());
      const delayMs = this.#policy.ended({
        heldMs: performance.now() - connectedMs,
        takenOver: connection.takenOver,
        unexplained: connection.endedUnexplained && connection.limits.sessionPresent,
      });
      if (this.#policy.isTakeoverSuspected) this.#warnings.suspectTakeover(this.#clientId);
      await this.#outage.failed(this, { reason, delayMs, signal });
    }
  }

  /** Logs the connection and the end of the outage, once the connection has lasted long enough. */
  #confirmLater(connection: BrokerConnection): ReturnType<typeof setTimeout> | undefined {
    const confirm = (): void => {
      this.#policy.confirmed();
      this.#outage.succeeded(this);
      log.info(`Connected to ${describeConnection(connection)}.`);
    };
    const { doubtMs } = this.#policy;
    if (doubtMs === 0) {
      confirm();
      return undefined;
    }
    log.debug(`Connected to ${describeConnection(connection)}.`);
    return setTimeout(confirm, doubtMs);
  }

  /** Whether there is a connection, and since when. */
  get connectionStatus(): ConnectionStatus {
    return this.#state.status;
  }

  /** Attempts to connect since the start. */
  get attempts(): number {
    return this.#attempts;
  }

  /** From now on messages stay with the broker: they are neither passed on nor acknowledged. */
  stopIntake(): void {
    this.#acceptsMessages = false;
  }

  /**
   * Sends the acknowledgements that are due and ends the connection; a persistent session stays.
   * Call it after `run` has ended.
   */
  async disconnect(): Promise<void> {
    await this.#connection?.disconnect();
    await this.#subscribing;
  }

  /** Tries each endpoint once; undefined if none accepted, after the backoff. */
  async #connect(signal: AbortSignal): Promise<BrokerConnection | undefined> {
    const failures: Failure[] = [];
    for (const endpoint of this.#config.endpoints) {
      try {
        const connection = await this.#open(endpoint, signal);
        this.#logSkipped(endpoint, failures);
        return connection;
      } catch (error) {
        if (signal.aborted) return undefined;
        const text = `${describeEndpoint(endpoint)}: ${describeError(error)}`;
        failures.push({ endpoint, text });
        log.debug(`Cannot connect to MQTT broker ${text}.`);
      }
    }
    const single = this.#config.endpoints.length === 1;
    const joined = failures.map(({ text }) => text).join("; ");
    const reason = single ? joined.slice(joined.indexOf(": ") + 2) : joined;
    this.#state.down(reason);
    await this.#outage.failed(this, { reason, delayMs: this.#policy.refused(), signal });
    return undefined;
  }

  /** Logs each skipped broker once, until it has accepted a connection again. */
  #logSkipped(used: Endpoint, skipped: readonly Failure[]): void {
    this.#skipped.delete(used);
    for (const { endpoint, text } of skipped) {
      if (!this.#skipped.has(endpoint)) log.warning(`MQTT broker ${text}. Using the next one.`);
      this.#skipped.add(endpoint);
    }
  }

  async #open(endpoint: Endpoint, signal: AbortSignal): Promise<BrokerConnection> {
    const { protocolVersion, clientId, tls, user, password, tuning } = this.#config;
    this.#attempts++;
    const options = {
      ...{ endpoint, tls, user, password, tuning, signal },
      clientId: this.#clientId,
      persistent: clientId !== undefined,
      onMessage: (message: Delivery, acknowledge: (delivery: Delivery) => void) =>
        this.#receive(message, acknowledge),
      earlierInFlight: () => this.#orphans,
    };
    const open = this.#openConnection;
    if (protocolVersion !== undefined) return await open({ ...options, protocolVersion });
    return await connectNewest((version) => open({ ...options, protocolVersion: version }));
  }

  /** Subscribes, and retries refused filters until all are granted or the connection has ended. */
  async #subscribe(connection: BrokerConnection, signal: AbortSignal): Promise<void> {
    const over = new AbortController();
    using _ = onAbort(signal, () => over.abort());
    connection.closed.then(() => over.abort());
    try {
      this.#stale.beforeSubscribing();
      let pending = this.#filters;
      while (pending.length > 0 && !over.signal.aborted) {
        const results = await connection.subscribe(pending, this.#config.qos);
        pending = results.filter((result) => !this.#warnings.isGranted(result))
          .map(({ filter }) => filter);
        if (pending.length === 0) await this.#stale.unsubscribe(connection);
        else await sleep(REFUSED_RETRY_MS, over.signal);
      }
    } catch (error) {
      // The connection has ended; the next one is subscribed after its CONNACK.
      log.debug(`Cannot subscribe: ${describeError(error)}.`);
    }
  }

  #receive(message: Delivery, acknowledge: (delivery: Delivery) => void): void {
    if (!this.#acceptsMessages) return;
    const orphan = this.#orphans.take(message);
    if (orphan !== undefined) {
      acknowledge(orphan);
      this.#onRedelivered();
      return;
    }
    acknowledge(message);
    if (this.#config.clientId !== undefined) {
      this.#stale.received(message.topic, this.#connection);
    }
    this.#onDelivery(message);
  }
}

/** The filters to subscribe to, in their `$share/GROUP/` form if a group is configured. */
function subscriptionFilters({ filters, sharedGroup }: MqttConfig): string[] {
  return filters.map((filter) =>
    sharedGroup === undefined ? filter : `$share/${sharedGroup}/${filter}`
  );
}

/** At most 23 characters, which some MQTT 3.1.1 brokers require. */
function randomClientId(): string {
  return `kraken-${crypto.randomUUID().replaceAll("-", "").slice(0, 16)}`;
}

function describeConnection(connection: BrokerConnection): string {
  const version = connection.protocolVersion === 5 ? "5" : "3.1.1";
  const session = connection.limits.sessionPresent ? "session resumed" : "new session";
  return `MQTT broker ${describeEndpoint(connection.endpoint)} (MQTT ${version}, ${session})`;
}

/** Resolves to the reason when the connection has ended, to undefined when `signal` is aborted. */
async function endOf(
  connection: BrokerConnection,
  signal: AbortSignal,
): Promise<string | undefined> {
  const stopped = Promise.withResolvers<undefined>();
  using _ = onAbort(signal, () => stopped.resolve(undefined));
  return await Promise.race([connection.closed, stopped.promise]);
}
