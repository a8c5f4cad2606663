/**
 * Reads the table `sensors`: which sensors are enabled, and their labels, if it has a column `label`.
 * It is read on request only, at most once a minute, over a separate connection.
 */

import { sleep } from "../common/backoff.ts";
import { describeError } from "../common/error_text.ts";
import { onAbort } from "../common/abort.ts";
import type { DatabaseConfig } from "../config/database.ts";
import { DatabaseConnection } from "../database/connection.ts";
import { log } from "../common/log.ts";
import type { RegisteredSensor } from "./sensor_activity.ts";

const REFRESH_MS = 60_000;

/** Time until the next attempt after a failure. */
const RETRY_MS = 5_000;

/** Maximum number of rows that are read. */
const MAX_ROWS = 20_000;

const HAS_LABEL_SQL = `
  SELECT EXISTS (
    SELECT FROM pg_attribute
    WHERE attrelid = to_regclass('sensors') AND attname = 'label' AND NOT attisdropped
  ) AS "hasLabel"`;

/** Called with the rows whenever they have been read. */
export type RegisteredSensorsListener = (rows: readonly RegisteredSensor[]) => void;

/** Reads the registered sensors. The owner awaits `stop` at the end. */
export class RegisteredSensors {
  readonly #config: DatabaseConfig;
  readonly #onRead: RegisteredSensorsListener;
  readonly #stop = new AbortController();
  #dueMs = -Infinity;
  #isKnown = false;
  #refreshing: Promise<void> = Promise.resolve();

  constructor(config: DatabaseConfig, onRead: RegisteredSensorsListener) {
    this.#config = config;
    this.#onRead = onRead;
  }

  /** Reads in the background, unless the last attempt was a short time ago. */
  refresh(): void {
    if (performance.now() < this.#dueMs || this.#stop.signal.aborted) return;
    this.#dueMs = performance.now() + REFRESH_MS;
    this.#refreshing = this.#read().then((rows) => {
      this.#isKnown = true;
      this.#onRead(rows);
    }, (error) => {
      this.#dueMs = performance.now() + RETRY_MS;
      // Swallowed: nothing depends on the labels, and the writer logs an outage of the database.
      log.debug(`Cannot read the labels of the sensors: ${describeError(error)}.`);
    });
  }

  /** As `refresh`; resolves when the rows were read for the first time, or after the timeout in ms. */
  async untilKnown(timeoutMs: number): Promise<void> {
    this.refresh();
    if (this.#isKnown) return;
    const over = new AbortController();
    await Promise.race([this.#refreshing, sleep(timeoutMs, over.signal)]);
    over.abort();
  }

  /** Aborts a read that is in progress. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#refreshing;
  }

  async #read(): Promise<RegisteredSensor[]> {
    const { signal } = this.#stop;
    await using connection = await DatabaseConnection.open(this.#config, signal);
    using _ = onAbort(signal, () => connection.cut());
    const [row] = await connection.query<{ hasLabel: boolean }>(HAS_LABEL_SQL);
    const label = row?.hasLabel ? "nullif(label::text, '')" : "NULL";
    return await connection.query<RegisteredSensor>(
      `SELECT uuid::text AS uuid, sensor_sid::float8 AS sid, ${label} AS label, enabled
       FROM sensors LIMIT ${MAX_ROWS}`,
    );
  }
}
