/**
 * The subscriber: keeps one connection to one of the brokers, for ever, with the subscriptions
 * that are configured, and hands over what it brings.
 */

import type { MqttConfig, ProtocolVersion } from "../config/config.ts";
import { describeEndpoint, type Endpoint } from "../common/endpoint.ts";
import { Delivery } from "../message/delivery.ts";
import { FormerSubscriptions } from "./stale_subscriptions.ts";
import { log } from "../common/log.ts";
import { MqttConnection, SESSION_EXPIRY_SECONDS, type Subscription } from "./connection.ts";
import { openNewest } from "./connect.ts";
import { ConnectionState } from "../common/connection_state.ts";
import { Reconnection } from "./reconnect_policy.ts";
import { describeError, Outage, sleep } from "../common/retry.ts";
import type { Statistics } from "../pipeline/statistics.ts";
import type { ConnectionStatus } from "../monitoring/status.ts";
import type { SubscriptionRecord } from "../spool/subscription_record.ts";

/** Time between two attempts to get a subscription that the broker refused. */
const REFUSED_RETRY_MS = 60_000;

export interface MqttSubscriberOptions {
  /** Takes a message in. It must not throw. */
  readonly onDelivery: (delivery: Delivery) => void;
  readonly statistics: Statistics;
  /** What the session may be subscribed to from before; undefined where nobody keeps that. */
  readonly record: SubscriptionRecord | undefined;
}

/** Subscribes from `run` until its signal is aborted; `disconnect` then says goodbye. */
export class MqttSubscriber {
  readonly #config: MqttConfig;
  readonly #onDelivery: (delivery: Delivery) => void;
  readonly #statistics: Statistics;
  readonly #former: FormerSubscriptions;
  readonly #clientId: string;
  readonly #filters: readonly string[];
  readonly #outage: Outage;
  readonly #reconnection = new Reconnection();
  /** What earlier connections brought and is not settled yet, by payload. */
  readonly #orphans = new Map<string, Delivery>();
  #orphanBytes = 0;
  /** Brokers that did not accept while a later one did. */
  readonly #skipped = new Set<Endpoint>();
  /** Warnings given about the broker, each of which is given once. */
  readonly #warned = new Set<string>();
  readonly #state = new ConnectionState();
  /** The broker that has a session, as far as is known, and when a connection last ended. */
  #sessionAt: Endpoint | undefined;
  #disconnectedMs: number | undefined;
  #attempts = 0;
  #connection: MqttConnection | undefined;
  #subscribing: Promise<void> = Promise.resolve();
  #takesIn = true;

  constructor(config: MqttConfig, options: MqttSubscriberOptions) {
    this.#config = config;
    this.#onDelivery = options.onDelivery;
    this.#statistics = options.statistics;
    this.#clientId = config.clientId ?? randomClientId();
    this.#filters = subscriptionFilters(config);
    this.#former = new FormerSubscriptions(config, {
      filters: this.#filters,
      record: options.record,
    });
    const [endpoint, ...others] = config.endpoints;
    const hadSession = (options.record?.filters().length ?? 0) > 0;
    if (hadSession && others.length === 0) this.#sessionAt = endpoint;
    this.#outage = new Outage(
      `MQTT broker ${config.endpoints.map(describeEndpoint).join(" or ")}`,
    );
  }

  /**
   * Connects, and connects again whenever the connection ends, until `signal` is aborted. The
   * last connection then stays for what is still to be acknowledged.
   */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const connection = await this.#connect(signal);
      if (connection === undefined) continue;
      const connectedMs = performance.now();
      this.#connection = connection;
      this.#state.up(`connected to ${describeConnection(connection)}`);
      const confirmation = this.#confirmLater(connection);
      this.#warnOfLostSession(connection);
      this.#warnOfShortSession(connection);
      this.#warnOfSharing(connection);
      this.#subscribing = this.#subscribe(connection, signal);
      const stopped = aborted(signal);
      const reason = await Promise.race([connection.closed, stopped.promise]);
      stopped.cancel();
      clearTimeout(confirmation);
      if (reason === undefined) return;
      this.#connection = undefined;
      this.#state.down(reason);
      this.#disconnectedMs = performance.now();
      this.#former.reset();
      await this.#subscribing;
      this.#adoptLater(connection.abandon());
      const delayMs = this.#reconnection.ended({
        heldMs: performance.now() - connectedMs,
        takenOver: connection.takenOver,
        unexplained: connection.endedUnexplained && connection.limits.sessionPresent,
      });
      if (this.#reconnection.isTakeoverSuspected) this.#warnOfTakeover();
      await this.#outage.failed(this, { reason, delayMs, signal });
    }
  }

  /** Tells of the connection, once it need not be doubted any more. */
  #confirmLater(connection: MqttConnection): ReturnType<typeof setTimeout> | undefined {
    const confirm = (): void => {
      this.#reconnection.confirmed();
      this.#outage.succeeded(this);
      log.info(`Connected to ${describeConnection(connection)}.`);
    };
    const { doubtMs } = this.#reconnection;
    if (doubtMs === 0) {
      confirm();
      return undefined;
    }
    log.debug(`Connected to ${describeConnection(connection)}.`);
    return setTimeout(confirm, doubtMs);
  }

  /** A broker that speaks MQTT 3.1.1 does not tell, and older ones of MQTT 5 do not either. */
  #warnOfTakeover(): void {
    this.#warnOnce(
      "The MQTT broker accepts connections and soon ends them without a reason: perhaps another " +
        `client connects with the same client id, MQTT_CLIENT_ID = '${this.#clientId}'.`,
    );
  }

  /** Whether there is a connection, and since when. */
  get connectionStatus(): ConnectionStatus {
    return this.#state.status;
  }

  /** Attempts to connect since the beginning. */
  get attempts(): number {
    return this.#attempts;
  }

  /** From now on messages are left with the broker: neither delivered nor acknowledged. */
  stopIntake(): void {
    this.#takesIn = false;
  }

  /** Sends what is due and ends the connection; a persistent session stays. After `run`. */
  async disconnect(): Promise<void> {
    await this.#connection?.disconnect();
    await this.#subscribing;
  }

  /** Tries each endpoint once; undefined where none accepted, after the backoff. */
  async #connect(signal: AbortSignal): Promise<MqttConnection | undefined> {
    const failures: { readonly endpoint: Endpoint; readonly text: string }[] = [];
    for (const endpoint of this.#config.endpoints) {
      try {
        const connection = await this.#open(endpoint, signal);
        this.#tellOfSkipped(endpoint, failures);
        return connection;
      } catch (error) {
        if (signal.aborted) return undefined;
        const failure = {
          endpoint,
          text: `${describeEndpoint(endpoint)}: ${describeError(error)}`,
        };
        failures.push(failure);
        log.debug(`Cannot connect to MQTT broker at ${failure.text}.`);
      }
    }
    const single = this.#config.endpoints.length === 1;
    const joined = failures.map(({ text }) => text).join("; ");
    const reason = single ? joined.slice(joined.indexOf(": ") + 2) : joined;
    this.#state.down(reason);
    await this.#outage.failed(this, {
      reason,
      delayMs: this.#reconnection.refused(),
      signal,
    });
    return undefined;
  }

  /** Once for each, until it has been connected to again. */
  #tellOfSkipped(
    used: Endpoint,
    skipped: readonly { readonly endpoint: Endpoint; readonly text: string }[],
  ): void {
    this.#skipped.delete(used);
    for (const { endpoint, text } of skipped) {
      if (!this.#skipped.has(endpoint)) log.warning(`MQTT broker ${text}. Using the next one.`);
      this.#skipped.add(endpoint);
    }
  }

  async #open(endpoint: Endpoint, signal: AbortSignal): Promise<MqttConnection> {
    const { protocolVersion, clientId, tls, user, password } = this.#config;
    this.#attempts++;
    const open = (version: ProtocolVersion): Promise<MqttConnection> =>
      MqttConnection.open({
        endpoint,
        tls,
        protocolVersion: version,
        clientId: this.#clientId,
        persistent: clientId !== undefined,
        user,
        password,
        onDelivery: (delivery) => this.#deliver(delivery),
        heldBefore: () => ({ count: this.#orphans.size, bytes: this.#orphanBytes }),
        signal,
      });
    if (protocolVersion !== undefined) return await open(protocolVersion);
    return await openNewest(open);
  }

  /** Subscribes, and again to what was refused, until everything is granted or it is over. */
  async #subscribe(connection: MqttConnection, signal: AbortSignal): Promise<void> {
    const over = new AbortController();
    const end = (): void => over.abort();
    signal.addEventListener("abort", end);
    connection.closed.then(end);
    try {
      this.#former.note();
      let pending = this.#filters;
      while (pending.length > 0 && !over.signal.aborted) {
        const results = await connection.subscribe(pending, this.#config.qos);
        pending = results.filter((result) => !this.#isGranted(result)).map(({ filter }) => filter);
        if (pending.length === 0) await this.#former.end(connection);
        else await sleep(REFUSED_RETRY_MS, over.signal);
      }
    } catch (error) {
      // The connection has ended, and is subscribed again after the next CONNACK.
      log.debug(`Cannot subscribe: ${describeError(error)}.`);
    } finally {
      signal.removeEventListener("abort", end);
    }
  }

  /** Whoever looks for the cause of a gap in the data finds it here. */
  #warnOfLostSession({ endpoint, limits: { sessionPresent } }: MqttConnection): void {
    const isLost = !sessionPresent && this.#sessionAt === endpoint;
    this.#sessionAt = this.#config.clientId === undefined ? undefined : endpoint;
    if (!isLost) return;
    const time = this.#disconnectedMs === undefined
      ? "since the logger last ran"
      : `in the ${((performance.now() - this.#disconnectedMs) / 1000).toFixed(1)} s before`;
    log.warning(
      `The broker has no session of MQTT_CLIENT_ID = '${this.#clientId}' any more: what was ` +
        `published ${time}, it has not kept for the logger.`,
    );
  }

  #warnOfShortSession({ limits: { sessionExpirySeconds } }: MqttConnection): void {
    if (this.#config.clientId === undefined || sessionExpirySeconds === undefined) return;
    if (sessionExpirySeconds >= SESSION_EXPIRY_SECONDS) return;
    const hours = (sessionExpirySeconds / 3600).toFixed(1);
    this.#warnOnce(
      `The broker forgets this client after ${hours} hours of absence, and with it the messages ` +
        "that wait.",
    );
  }

  #warnOfSharing({ limits: { sharedSubscriptions } }: MqttConnection): void {
    if (this.#config.sharedGroup === undefined || sharedSubscriptions !== undefined) return;
    this.#warnOnce(
      "MQTT 3.1.1 does not tell whether the broker knows shared subscriptions. Where it does not, " +
        "nothing comes in by MQTT_SHARED_GROUP: 'kraken-logger check' finds out.",
    );
  }

  #warnOnce(text: string): void {
    if (this.#warned.has(text)) return;
    this.#warned.add(text);
    log.warning(text);
  }

  #isGranted({ filter, granted }: Subscription): boolean {
    const { qos } = this.#config;
    const refused = `refused ${filter}`;
    if (typeof granted === "string") {
      if (!this.#warned.has(refused)) {
        log.error(`Subscription to '${filter}' refused: ${granted}. Trying again every minute.`);
      }
      this.#warned.add(refused);
      return false;
    }
    if (this.#warned.delete(refused)) log.info(`Subscription to '${filter}' granted.`);
    const less = `The broker grants QoS ${granted} for '${filter}' instead of ${qos}. ` +
      (granted === 0
        ? "Messages are lost whenever the connection is interrupted."
        : "Nothing is lost by that: a repeated reading is stored once.");
    if (granted < qos) this.#warnOnce(less);
    return true;
  }

  #deliver(delivery: Delivery): Delivery | undefined {
    if (!this.#takesIn) return undefined;
    if (this.#orphans.size > 0 && delivery.qos > 0) {
      const orphan = this.#orphans.get(orphanKey(delivery));
      if (orphan !== undefined && orphan.qos === delivery.qos) {
        this.#forgetOrphan(orphan);
        this.#statistics.redelivered++;
        return orphan;
      }
    }
    if (this.#config.clientId !== undefined) {
      this.#former.notice(delivery.topic, this.#connection);
    }
    this.#onDelivery(delivery);
    return delivery;
  }

  /**
   * Remembers what is in hand while nobody can acknowledge it. It is kept, because a broker that
   * has lost its memory will not send it again; and when the broker does send it again, it is
   * recognised by its content, so that reconnections while the database is away do not add up.
   */
  #adoptLater(deliveries: readonly Delivery[]): void {
    for (const delivery of deliveries) {
      const key = orphanKey(delivery);
      // One of the same content is in hand as well, and stays so.
      if (this.#orphans.has(key)) continue;
      this.#orphans.set(key, delivery);
      this.#orphanBytes += delivery.payload.length;
      delivery.onSettled = () => {
        this.#forgetOrphan(delivery);
        this.#connection?.resumeWithRoom();
      };
    }
  }

  #forgetOrphan(delivery: Delivery): void {
    if (this.#orphans.delete(orphanKey(delivery))) this.#orphanBytes -= delivery.payload.length;
  }
}

/** The filters to subscribe to, in their `$share/GROUP/` form where a group is configured. */
function subscriptionFilters({ filters, sharedGroup }: MqttConfig): string[] {
  return filters.map((filter) =>
    sharedGroup === undefined ? filter : `$share/${sharedGroup}/${filter}`
  );
}

function orphanKey(delivery: Delivery): string {
  return `${delivery.topic}\0${delivery.payload.toString("latin1")}`;
}

/** Short enough for MQTT 3.1.1 brokers that insist on 23 characters. */
function randomClientId(): string {
  return `kraken-${crypto.randomUUID().replaceAll("-", "").slice(0, 16)}`;
}

function describeConnection(connection: MqttConnection): string {
  const version = connection.protocolVersion === 5 ? "5" : "3.1.1";
  const session = connection.limits.sessionPresent ? "session resumed" : "new session";
  return `MQTT broker at ${describeEndpoint(connection.endpoint)} (MQTT ${version}, ${session})`;
}

/** A promise that resolves when the signal is aborted, and a way to stop waiting for it. */
function aborted(signal: AbortSignal): { promise: Promise<undefined>; cancel: () => void } {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const onAbort = (): void => resolve(undefined);
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort);
  return { promise, cancel: () => signal.removeEventListener("abort", onAbort) };
}
