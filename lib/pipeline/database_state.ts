/**
 * Whether the database accepts readings: what its connections do, the outage in the log, and the
 * status for page and metrics.
 */

import type { Backoff } from "../common/backoff.ts";
import { ConnectionState, type ConnectionStatus } from "../common/connection_state.ts";
import { describeEndpoint } from "../common/endpoint.ts";
import { log } from "../common/log.ts";
import { Outage } from "../common/outage.ts";
import type { DatabaseConfig } from "../config/database.ts";
import type { TableColumns } from "../database/table_columns.ts";

/** One of the parallel connections: the same object from one attempt to the next. */
export interface Worker {
  readonly backoff: Backoff;
}

/** The state of the database, by what happens to its connections. */
export class DatabaseState {
  readonly #where: string;
  readonly #countWaiting: () => number;
  readonly #outage: Outage;
  readonly #state = new ConnectionState();
  /** Connections that work, and those whose last attempt failed. */
  readonly #connected = new Set<Worker>();
  readonly #failing = new Set<Worker>();
  #wasLogged = false;

  /** `countWaiting` returns the messages without an outcome, in memory and in the spool. */
  constructor({ name, endpoint }: DatabaseConfig, countWaiting: () => number) {
    this.#where = `database '${name}' at ${describeEndpoint(endpoint)}`;
    this.#countWaiting = countWaiting;
    this.#outage = new Outage(this.#where.replace(/^d/, "D"), countWaiting);
  }

  /** Whether no connection works although one was tried. */
  get isUnavailable(): boolean {
    return this.#connected.size === 0 && this.#failing.size > 0;
  }

  /** Whether no message waits for the database. */
  get #isDrained(): boolean {
    return this.#countWaiting() === 0;
  }

  /** Whether the database accepts readings, and since when. */
  get status(): ConnectionStatus {
    return this.#state.status;
  }

  /**
   * A connection was opened, to a table with these columns; it counts as open until the returned
   * object is disposed. While messages wait, only a successful insert proves that the database
   * accepts rows.
   */
  opened(worker: Worker, columns: TableColumns): Disposable {
    this.#connected.add(worker);
    if (this.#isDrained) this.succeeded(worker, columns);
    return { [Symbol.dispose]: () => this.#connected.delete(worker) };
  }

  /** A connection failed, for a reason without a full stop. Resolves when to open it again. */
  async failed(
    worker: Worker,
    { reason, signal }: { readonly reason: string; readonly signal: AbortSignal },
  ): Promise<void> {
    this.#failing.add(worker);
    if (this.#connected.size === 0) this.#state.down(reason);
    const delayMs = worker.backoff.nextDelayMs();
    await this.#outage.failed(worker, { reason, delayMs, signal });
  }

  /** The database has stored something over this connection. */
  succeeded(worker: Worker, columns: TableColumns): void {
    worker.backoff.reset();
    this.#failing.delete(worker);
    this.#outage.succeeded(worker);
    if (!this.#state.status.connected) this.#state.up(`connected to ${this.#where}`);
    if (this.#wasLogged) return;
    this.#wasLogged = true;
    log.info(`Connected to ${this.#where}.`);
    if (!columns.uniqueKey) {
      log.warning(
        "The table sensor_data has no unique key on (sensor_id, time): a reading that is sent " +
          "twice is stored twice. To fix it: " +
          "ALTER TABLE sensor_data ADD UNIQUE (sensor_id, time);",
      );
    }
  }

  /**
   * A batch has ended. If no message waits any more, no insert will prove soon that the other
   * connections work, so that they count as working.
   */
  batchEnded(columns: TableColumns): void {
    if (!this.#isDrained) return;
    for (const worker of this.#connected) this.succeeded(worker, columns);
  }
}
