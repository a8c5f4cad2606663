/** What the operator should know about the session that a broker has granted. */

import type { Endpoint } from "../common/endpoint.ts";
import { log } from "../common/log.ts";
import { formatClock } from "../common/text.ts";
import type { MqttConfig } from "../config/mqtt.ts";
import type { QoS } from "../message/delivery.ts";
import { SESSION_EXPIRY_SECONDS } from "./broker_limits.ts";
import { type BrokerConnection, type Subscription } from "./connection.ts";

export interface SessionHistory {
  /** Whether an earlier run of the logger left a session with the only broker of the list. */
  readonly hadSession: boolean;
}

/** Logs each warning once, except for a lost session. */
export class SessionWarnings {
  readonly #config: MqttConfig;
  readonly #logged = new Set<string>();
  /** Filters that the broker refused last. */
  readonly #refused = new Set<string>();
  /** The broker that has a session, as far as is known. */
  #sessionAt: Endpoint | undefined;
  /** When the last connection ended, in ms since 1970; undefined if there was none. */
  #disconnectedMs: number | undefined;

  constructor(config: MqttConfig, { hadSession }: SessionHistory) {
    this.#config = config;
    const [endpoint, ...others] = config.endpoints;
    if (hadSession && others.length === 0) this.#sessionAt = endpoint;
  }

  /** Call after each CONNACK. */
  connected(connection: BrokerConnection): void {
    this.#warnOfLostSession(connection);
    this.#warnOfShortSession(connection);
    this.#warnOfSharing(connection);
  }

  /** Call when a connection has ended. */
  disconnected(): void {
    this.#disconnectedMs = Date.now();
  }

  /**
   * Call when connections end soon after they were accepted, without a reason. MQTT 3.1.1 has no
   * way to give one, and some brokers that speak MQTT 5 give none either.
   */
  suspectTakeover(clientId: string): void {
    this.#warnOnce(
      "The MQTT broker accepts connections and soon closes them without a reason. Another client " +
        `may be using the same client id, MQTT_CLIENT_ID '${clientId}'.`,
    );
  }

  /** Whether a filter was granted; logs refusals, and a QoS that loses messages. */
  isGranted({ filter, granted }: Subscription): boolean {
    if (typeof granted === "string") {
      if (!this.#refused.has(filter)) {
        log.error(`Subscription to '${filter}' was refused: ${granted}. Retrying every minute.`);
      }
      this.#refused.add(filter);
      return false;
    }
    if (this.#refused.delete(filter)) log.info(`Subscription to '${filter}' was granted.`);
    if (granted < this.#config.qos) this.#warnOfLowerQos(filter, granted);
    return true;
  }

  #warnOfLowerQos(filter: string, granted: QoS): void {
    const effect = granted === 0
      ? "Messages are lost whenever the connection is interrupted."
      : "Nothing is lost by that: a repeated reading is stored once.";
    this.#warnOnce(
      `The broker granted QoS ${granted} for '${filter}' instead of ${this.#config.qos}. ${effect}`,
    );
  }

  /** The explanation of a gap in the data. */
  #warnOfLostSession({ endpoint, limits: { sessionPresent } }: BrokerConnection): void {
    const isLost = !sessionPresent && this.#sessionAt === endpoint;
    this.#sessionAt = this.#config.clientId === undefined ? undefined : endpoint;
    if (!isLost) return;
    const since = this.#disconnectedMs === undefined
      ? "the last run of the logger"
      : `${formatClock(this.#disconnectedMs)} ` +
        `(${((Date.now() - this.#disconnectedMs) / 1000).toFixed(1)} s)`;
    log.warning(
      `The broker has lost the session of MQTT_CLIENT_ID '${this.#config.clientId}'. Messages ` +
        `published since ${since} were not queued and are lost.`,
    );
  }

  #warnOfShortSession({ limits: { sessionExpirySeconds } }: BrokerConnection): void {
    if (this.#config.clientId === undefined || sessionExpirySeconds === undefined) return;
    if (sessionExpirySeconds >= SESSION_EXPIRY_SECONDS) return;
    const hours = (sessionExpirySeconds / 3600).toFixed(1);
    this.#warnOnce(
      `The broker deletes the session of this client, with the messages queued in it, ${hours} ` +
        "hours after a disconnection.",
    );
  }

  #warnOfSharing({ limits: { sharedSubscriptions } }: BrokerConnection): void {
    if (this.#config.sharedGroup === undefined || sharedSubscriptions !== undefined) return;
    this.#warnOnce(
      "MQTT 3.1.1 does not say whether the broker supports shared subscriptions. If it does not, " +
        "MQTT_SHARED_GROUP receives no messages: run 'kraken-logger check' to find out.",
    );
  }

  #warnOnce(text: string): void {
    if (this.#logged.has(text)) return;
    this.#logged.add(text);
    log.warning(text);
  }
}
