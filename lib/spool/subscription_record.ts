/**
 * The filters that the broker's session may be subscribed to, by client id, kept in the spool file.
 * A broker does not list them, and filters that are no longer configured must be unsubscribed.
 */

import { describeError } from "../common/error_text.ts";
import { log } from "../common/log.ts";
import { SpoolError } from "./errors.ts";
import type { SpoolFile } from "./file.ts";

/**
 * The record in an open spool file. If it cannot be read or written, the logger runs without it.
 */
export class SubscriptionRecord {
  readonly #file: SpoolFile;
  readonly #clientId: string;

  /** The caller keeps ownership of `file` and closes it. */
  constructor(file: SpoolFile, clientId: string) {
    this.#file = file;
    this.#clientId = clientId;
  }

  /** The recorded filters, shared ones with `$share/GROUP/`; none if the record is unreadable. */
  filters(): string[] {
    return this.#attempt(() => {
      const sql = "SELECT filter FROM subscription WHERE client_id = ? ORDER BY id";
      return this.#file.all(sql, this.#clientId).map(({ filter }) => String(filter));
    }) ?? [];
  }

  /** Adds filters. Call it before subscribing to them. */
  add(filters: readonly string[]): void {
    const before = this.filters();
    const added = filters.filter((filter) => !before.includes(filter));
    if (added.length > 0) this.#attempt(() => this.#insert(added));
  }

  /** Deletes all other filters. Call it after unsubscribing them. */
  keepOnly(filters: readonly string[]): void {
    const others = this.filters().filter((filter) => !filters.includes(filter));
    if (others.length > 0) this.#attempt(() => this.#delete(others));
  }

  #insert(filters: readonly string[]): void {
    this.#file.transaction(() => {
      for (const filter of filters) {
        const sql = "INSERT INTO subscription (client_id, filter) VALUES (?, ?)";
        this.#file.run(sql, this.#clientId, filter);
      }
    });
  }

  #delete(filters: readonly string[]): void {
    this.#file.transaction(() => {
      for (const filter of filters) {
        const sql = "DELETE FROM subscription WHERE client_id = ? AND filter = ?";
        this.#file.run(sql, this.#clientId, filter);
      }
    });
  }

  #attempt<T>(work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof SpoolError)) throw error;
      // Without the record, messages of an unrecorded filter still reveal it, unless another filter
      // matches them, too.
      log.debug(`Cannot read or write the subscription record: ${describeError(error)}.`);
      return undefined;
    }
  }
}
