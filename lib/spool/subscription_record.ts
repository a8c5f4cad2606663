/**
 * The filters that the broker's session of this client id may be subscribed to, kept in the spool's
 * file: a broker does not list them, and one that is no longer configured is to be unsubscribed.
 */

import { log } from "../common/log.ts";
import { describeError } from "../common/retry.ts";
import { type SpoolDatabase, SpoolError } from "./file.ts";

/** The record in an open spool. One that cannot be read or written is done without. */
export class SubscriptionRecord {
  readonly #database: SpoolDatabase;
  readonly #clientId: string;

  /** `database` stays the caller's own. */
  constructor(database: SpoolDatabase, clientId: string) {
    this.#database = database;
    this.#clientId = clientId;
  }

  /** The filters of the session, in their `$share/GROUP/` form where they were shared. */
  filters(): string[] {
    return this.#attempt(() => {
      const sql = "SELECT filter FROM subscription WHERE client_id = ? ORDER BY id";
      return this.#database.all(sql, this.#clientId).map(({ filter }) => String(filter));
    }) ?? [];
  }

  /** To be called before filters are subscribed to. */
  add(filters: readonly string[]): void {
    const before = this.filters();
    const added = filters.filter((filter) => !before.includes(filter));
    if (added.length > 0) this.#attempt(() => this.#insert(added));
  }

  /** To be called when all others have been unsubscribed. */
  keepOnly(filters: readonly string[]): void {
    const others = this.filters().filter((filter) => !filters.includes(filter));
    if (others.length > 0) this.#attempt(() => this.#delete(others));
  }

  #insert(filters: readonly string[]): void {
    this.#database.transaction(() => {
      for (const filter of filters) {
        const sql = "INSERT INTO subscription (client_id, filter) VALUES (?, ?)";
        this.#database.run(sql, this.#clientId, filter);
      }
    });
  }

  #delete(filters: readonly string[]): void {
    this.#database.transaction(() => {
      for (const filter of filters) {
        const sql = "DELETE FROM subscription WHERE client_id = ? AND filter = ?";
        this.#database.run(sql, this.#clientId, filter);
      }
    });
  }

  #attempt<T>(work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof SpoolError)) throw error;
      // What a forgotten filter brings shows it as well, unless another filter matches it, too.
      log.debug(`Cannot record subscriptions: ${describeError(error)}.`);
      return undefined;
    }
  }
}
