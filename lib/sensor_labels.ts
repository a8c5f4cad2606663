/**
 * The labels of the sensors, from the column `label` of the table `sensors`, where there is one.
 * They are read only when somebody looks, at most once a minute, over a connection of its own.
 */

import type { DatabaseConfig } from "./config.ts";
import { DatabaseConnection } from "./database.ts";
import { log } from "./log.ts";
import { describeError } from "./retry.ts";

const REFRESH_MS = 60_000;

/** Labels read at most. */
const MAX_LABELS = 20_000;

const HAS_LABEL_SQL = `
  SELECT EXISTS (
    SELECT FROM pg_attribute
    WHERE attrelid = to_regclass('sensors') AND attname = 'label' AND NOT attisdropped
  ) AS "hasLabel"`;

/** Whoever owns it awaits `stop` at the end. */
export class SensorLabels {
  readonly #config: DatabaseConfig;
  readonly #stop = new AbortController();
  #labels = new Map<string, string>();
  #refreshedMs = -Infinity;
  #refreshing: Promise<void> = Promise.resolve();

  constructor(config: DatabaseConfig) {
    this.#config = config;
  }

  /** The label of a sensor, whose uuid has hyphens, as it was last read. */
  get(uuid: string, sid: number): string | undefined {
    return this.#labels.get(`${uuid} ${sid}`);
  }

  /** Reads the labels in the background, unless that was done a short time ago. */
  refresh(onRead: () => void): void {
    if (performance.now() - this.#refreshedMs < REFRESH_MS || this.#stop.signal.aborted) return;
    this.#refreshedMs = performance.now();
    this.#refreshing = this.#read().then(onRead, (error) => {
      // Nothing depends on the labels, and what ails the database is in the log already.
      log.debug(`Cannot read the labels of the sensors: ${describeError(error)}.`);
    });
  }

  /** Gives up what is under way. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#refreshing;
  }

  async #read(): Promise<void> {
    const { signal } = this.#stop;
    const connection = await DatabaseConnection.open(this.#config, signal);
    const cut = (): void => connection.cut();
    signal.addEventListener("abort", cut);
    try {
      const [row] = await connection.query<{ hasLabel: boolean }>(HAS_LABEL_SQL);
      if (!row?.hasLabel) return;
      const rows = await connection.query<{ uuid: string; sid: number; label: string }>(
        `SELECT uuid::text AS uuid, sensor_sid AS sid, label::text AS label
         FROM sensors WHERE label <> '' LIMIT ${MAX_LABELS}`,
      );
      this.#labels = new Map(rows.map(({ uuid, sid, label }) => [`${uuid} ${sid}`, label]));
    } finally {
      signal.removeEventListener("abort", cut);
      await connection.close();
    }
  }
}
