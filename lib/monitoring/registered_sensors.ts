/**
 * What the table `sensors` has: which sensors are enabled, and their labels, where it has a column
 * `label`. It is read only when somebody looks, at most once a minute, over a connection of its own.
 */

import { sleep } from "../common/backoff.ts";
import { describeError } from "../common/error_text.ts";
import type { DatabaseConfig } from "../config/config.ts";
import { DatabaseConnection } from "../database/connection.ts";
import { log } from "../common/log.ts";
import type { RegisteredSensor } from "./sensor_activity.ts";

const REFRESH_MS = 60_000;

/** Time after which it is tried again where it could not be read. */
const RETRY_MS = 5_000;

/** Rows read at most. */
const MAX_ROWS = 20_000;

const HAS_LABEL_SQL = `
  SELECT EXISTS (
    SELECT FROM pg_attribute
    WHERE attrelid = to_regclass('sensors') AND attname = 'label' AND NOT attisdropped
  ) AS "hasLabel"`;

/** Is told of the rows when they have been read. */
export type LabelListener = (rows: readonly RegisteredSensor[]) => void;

/** Whoever owns it awaits `stop` at the end. */
export class SensorLabels {
  readonly #config: DatabaseConfig;
  readonly #onRead: LabelListener;
  readonly #stop = new AbortController();
  #dueMs = -Infinity;
  #isKnown = false;
  #refreshing: Promise<void> = Promise.resolve();

  constructor(config: DatabaseConfig, onRead: LabelListener) {
    this.#config = config;
    this.#onRead = onRead;
  }

  /** Reads in the background, unless that was done a short time ago. */
  refresh(): void {
    if (performance.now() < this.#dueMs || this.#stop.signal.aborted) return;
    this.#dueMs = performance.now() + REFRESH_MS;
    this.#refreshing = this.#read().then((rows) => {
      this.#isKnown = true;
      this.#onRead(rows);
    }, (error) => {
      this.#dueMs = performance.now() + RETRY_MS;
      // Nothing depends on the labels, and what ails the database is in the log already.
      log.debug(`Cannot read the labels of the sensors: ${describeError(error)}.`);
    });
  }

  /** Reads as `refresh` does, and waits until it has been read for the first time, or time is up. */
  async untilKnown(timeoutMs: number): Promise<void> {
    this.refresh();
    if (this.#isKnown) return;
    const over = new AbortController();
    await Promise.race([this.#refreshing, sleep(timeoutMs, over.signal)]);
    over.abort();
  }

  /** Gives up what is under way. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#refreshing;
  }

  async #read(): Promise<RegisteredSensor[]> {
    const { signal } = this.#stop;
    const connection = await DatabaseConnection.open(this.#config, signal);
    const cut = (): void => connection.cut();
    signal.addEventListener("abort", cut);
    try {
      const [row] = await connection.query<{ hasLabel: boolean }>(HAS_LABEL_SQL);
      const label = row?.hasLabel ? "nullif(label::text, '')" : "NULL";
      return await connection.query<RegisteredSensor>(
        `SELECT uuid::text AS uuid, sensor_sid::float8 AS sid, ${label} AS label, enabled
         FROM sensors LIMIT ${MAX_ROWS}`,
      );
    } finally {
      signal.removeEventListener("abort", cut);
      await connection.close();
    }
  }
}
