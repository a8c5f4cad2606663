/**
 * Subscriptions that the broker's session still has from an earlier configuration. They must be
 * unsubscribed, and a broker does not list them: some are recorded, others are recognized by the
 * messages that they bring.
 */

import { describeError } from "../common/error_text.ts";
import { log } from "../common/log.ts";
import type { MqttConfig } from "../config/mqtt.ts";
import { filtersThatMatch, isMatch } from "../message/topic_filter.ts";
import type { BrokerConnection } from "./connection.ts";

/** Topics remembered as checked. */
const MAX_CHECKED_TOPICS = 10_000;

/**
 * Remembers across restarts which filters the session of this client id may have, in their
 * `$share/GROUP/` form where shared. Its methods must not throw.
 */
export interface SubscriptionStore {
  filters(): string[];
  /** Call before subscribing to the filters. */
  add(filters: readonly string[]): void;
  /** Call when all other filters have been unsubscribed. */
  keepOnly(filters: readonly string[]): void;
}

/** Finds stale subscriptions and unsubscribes them. */
export class StaleSubscriptions {
  readonly #config: MqttConfig;
  readonly #filters: readonly string[];
  readonly #store: SubscriptionStore | undefined;
  /** Filters that the session may have for certain; unsubscribed on each connection. */
  readonly #known: readonly string[];
  readonly #checkedTopics = new Set<string>();
  /** Topics that no configured filter matches. */
  readonly #strayTopics: string[] = [];
  readonly #unsubscribed = new Set<string>();
  #loggedStray = false;
  #warned = false;

  /** `filters` are the configured ones, in their `$share/GROUP/` form where shared. */
  constructor(
    config: MqttConfig,
    options: {
      readonly filters: readonly string[];
      readonly store: SubscriptionStore | undefined;
    },
  ) {
    const { clientId, sharedGroup } = config;
    this.#config = config;
    this.#filters = options.filters;
    this.#store = options.store;
    // The session may be older than the group, and would receive every message twice.
    const unshared = clientId === undefined || sharedGroup === undefined ? [] : config.filters;
    this.#known = [...new Set([...this.#store?.filters() ?? [], ...unshared])]
      .filter((filter) => !this.#filters.includes(filter));
  }

  /** A connection has ended: the next one may be to another broker. */
  reset(): void {
    this.#checkedTopics.clear();
    this.#unsubscribed.clear();
    this.#loggedStray = false;
  }

  /** Records the configured filters. Call it before subscribing to them. */
  beforeSubscribing(): void {
    this.#store?.add(this.#filters);
  }

  /**
   * Unsubscribes the known stale filters. Call it when the configured filters are granted, so that
   * no message is missed in between; a message that arrives twice is stored once.
   *
   * @throws {Error} when the connection ends before the broker answers.
   */
  async unsubscribe(connection: BrokerConnection): Promise<void> {
    if (this.#known.length > 0) {
      const found = await connection.unsubscribe(this.#known);
      for (const filter of found) log.info(`Unsubscribed from '${filter}': no longer configured.`);
      this.#store?.keepOnly(this.#filters);
    }
    await this.#unsubscribeStray(connection);
  }

  /**
   * Checks the topic of a message. If no configured filter matches, the message comes from a filter
   * that was configured once: one of those that match the topic. Without a `connection` it is
   * unsubscribed later, by `unsubscribe`.
   */
  received(topic: string, connection: BrokerConnection | undefined): void {
    if (this.#checkedTopics.has(topic)) return;
    if (this.#checkedTopics.size >= MAX_CHECKED_TOPICS) this.#checkedTopics.clear();
    this.#checkedTopics.add(topic);
    if (this.#filters.some((filter) => isMatch(filter, topic))) return;
    // The message was sent before its filter was unsubscribed.
    if (this.#known.some((filter) => isMatch(filter, topic))) return;
    this.#strayTopics.push(topic);
    if (connection === undefined) return;
    this.#unsubscribeStray(connection).catch((error) => {
      // The connection has ended; the next message of that kind leads to another attempt.
      log.debug(`Cannot unsubscribe: ${describeError(error)}.`);
    });
  }

  async #unsubscribeStray(connection: BrokerConnection): Promise<void> {
    const { sharedGroup } = this.#config;
    for (let topic; (topic = this.#strayTopics.shift()) !== undefined;) {
      const candidates = filtersThatMatch(topic);
      if (sharedGroup !== undefined) {
        candidates.push(...candidates.map((filter) => `$share/${sharedGroup}/${filter}`));
      }
      const filters = candidates.filter((filter) => !this.#unsubscribed.has(filter));
      if (filters.length === 0) continue;
      filters.forEach((filter) => this.#unsubscribed.add(filter));
      const found = await connection.unsubscribe(filters);
      if (found.length > 0) {
        const which = found.map((filter) => `'${filter}'`).join(", ");
        log.info(`Unsubscribed from ${which}: no longer configured.`);
      } else if (connection.protocolVersion === 5) {
        this.#warn(topic);
      } else if (!this.#loggedStray) {
        // MQTT 3.1.1 does not say which filter the session had, nor whether this is another one.
        this.#loggedStray = true;
        log.info(`Unsubscribed from the filter that delivered '${topic}': no longer configured.`);
      }
    }
  }

  /** Warns of the first topic only: others may have come from the same subscription. */
  #warn(topic: string): void {
    if (this.#warned) return;
    this.#warned = true;
    log.warning(
      `Messages arrive on '${topic}', which MQTT_TOPIC does not match. The session of ` +
        `MQTT_CLIENT_ID '${this.#config.clientId}' has an older subscription, perhaps of another ` +
        "shared group, that cannot be determined. It ends with the session.",
    );
  }
}
