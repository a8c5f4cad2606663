/**
 * Subscriptions that the broker's session still has from an earlier configuration, and that are to
 * be ended: a broker does not list them. Those that were recorded are known; others show by what
 * they bring.
 */

import type { MqttConfig } from "../config/config.ts";
import { log } from "../common/log.ts";
import type { MqttConnection } from "./connection.ts";
import { describeError } from "../common/retry.ts";
import type { SubscriptionRecord } from "../spool/subscription_record.ts";
import { filtersThatMatch, isMatch } from "../message/topic_filter.ts";

/** Topics remembered as being subscribed to on purpose. */
const MAX_KNOWN_TOPICS = 10_000;

/** Finds and ends them. What concerns a connection is forgotten by `reset`. */
export class FormerSubscriptions {
  readonly #config: MqttConfig;
  readonly #filters: readonly string[];
  readonly #record: SubscriptionRecord | undefined;
  /** Those that the session may have for certain, and that are ended on each connection. */
  readonly #former: readonly string[];
  readonly #knownTopics = new Set<string>();
  /** Topics that no configured filter matches. */
  readonly #staleTopics: string[] = [];
  readonly #unsubscribed = new Set<string>();
  #told = false;
  #warned = false;

  /** `filters` are those to be subscribed to, in their `$share/GROUP/` form where that is shared. */
  constructor(
    config: MqttConfig,
    options: {
      readonly filters: readonly string[];
      readonly record: SubscriptionRecord | undefined;
    },
  ) {
    const { clientId, sharedGroup } = config;
    this.#config = config;
    this.#filters = options.filters;
    this.#record = options.record;
    // The session may stem from a time before the group, and would get everything twice.
    const unshared = clientId === undefined || sharedGroup === undefined ? [] : config.filters;
    this.#former = [...new Set([...this.#record?.filters() ?? [], ...unshared])]
      .filter((filter) => !this.#filters.includes(filter));
  }

  /** A connection has ended: the next one may be to another broker. */
  reset(): void {
    this.#knownTopics.clear();
    this.#unsubscribed.clear();
    this.#told = false;
  }

  /** To be called before the configured filters are subscribed to. */
  note(): void {
    this.#record?.add(this.#filters);
  }

  /**
   * Unsubscribes from them. To be called when the session has what is configured now, so that
   * nothing falls between the two: what comes twice is stored once.
   *
   * @throws {Error} when the connection ends before the broker answers.
   */
  async end(connection: MqttConnection): Promise<void> {
    if (this.#former.length > 0) {
      const found = await connection.unsubscribe(this.#former);
      for (const filter of found) log.info(`Unsubscribed from '${filter}': no longer configured.`);
      this.#record?.keepOnly(this.#filters);
    }
    await this.#endStale(connection);
  }

  /**
   * A message that no configured filter matches comes from a filter that was configured once:
   * whichever filter that was, it is one of those that match the topic. Without a `connection` it
   * is seen to by `end`.
   */
  notice(topic: string, connection: MqttConnection | undefined): void {
    if (this.#knownTopics.has(topic)) return;
    if (this.#knownTopics.size >= MAX_KNOWN_TOPICS) this.#knownTopics.clear();
    this.#knownTopics.add(topic);
    if (this.#filters.some((filter) => isMatch(filter, topic))) return;
    // It may have been on its way.
    if (this.#former.some((filter) => isMatch(filter, topic))) return;
    this.#staleTopics.push(topic);
    if (connection === undefined) return;
    this.#endStale(connection).catch((error) => {
      // The connection has ended; the next message of that kind leads to another attempt.
      log.debug(`Cannot unsubscribe: ${describeError(error)}.`);
    });
  }

  async #endStale(connection: MqttConnection): Promise<void> {
    const { sharedGroup } = this.#config;
    for (let topic; (topic = this.#staleTopics.shift()) !== undefined;) {
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
      } else if (!this.#told) {
        // MQTT 3.1.1 does not tell which of them the session had, nor whether this is another one.
        this.#told = true;
        log.info(`Unsubscribed from what brought '${topic}': no longer configured.`);
      }
    }
  }

  /** Of the first one: others may have come from the same subscription. */
  #warn(topic: string): void {
    if (this.#warned) return;
    this.#warned = true;
    log.warning(
      `Messages come on '${topic}', which MQTT_TOPIC does not match: the session of ` +
        `MQTT_CLIENT_ID = '${this.#config.clientId}' has a subscription from before that cannot ` +
        "be found, of another shared group perhaps. It ends with the session.",
    );
  }
}
