/**
 * The writer: takes deliveries from the inbox, decodes them, stores them in batches, and settles
 * each once its reading is committed or its rejection reported. The promise of the whole program
 * rests on this order.
 *
 * A batch is decoded when a connection has it, not when it arrives, because what is a valid
 * reading depends on the columns of the table. One batch a connection is under way at a time.
 */

import type { DatabaseConfig } from "./config.ts";
import { describeEndpoint } from "./endpoint.ts";
import { type Catalogue, DatabaseConnection, DatabaseError } from "./database.ts";
import type { Delivery } from "./delivery.ts";
import type { Inbox } from "./inbox.ts";
import { FloodGuard, log } from "./log.ts";
import { decodeReading, PayloadError, type Reading, shortenPayload } from "./reading.ts";
import { Backoff, describeError, Outage } from "./retry.ts";
import type { Statistics } from "./statistics.ts";

/** Rows of one insert at most. Larger batches are not faster and hold more in hand. */
const MAX_BATCH_ROWS = 2_000;

/** Sensors remembered as already logged as unknown or disabled. */
const MAX_REPORTED_SENSORS = 10_000;

export interface WriterOptions {
  readonly inbox: Inbox;
  readonly statistics: Statistics;
}

/** A delivery and what it says. */
interface Decoded {
  readonly delivery: Delivery;
  readonly reading: Reading;
}

/** Stores from `run` until `finish` is called and everything is settled. */
export class Writer {
  readonly #config: DatabaseConfig;
  readonly #inbox: Inbox;
  readonly #statistics: Statistics;
  readonly #outage: Outage;
  readonly #rejections = new FloodGuard("rejected messages");
  readonly #sensorWarnings = new FloodGuard("warnings about sensors that are not stored");
  readonly #reportedSensors = new Set<string>();
  readonly #finished = new AbortController();
  #connected = false;

  constructor(config: DatabaseConfig, { inbox, statistics }: WriterOptions) {
    this.#config = config;
    this.#inbox = inbox;
    this.#statistics = statistics;
    this.#outage = new Outage(
      `Database '${config.name}' at ${describeEndpoint(config.endpoint)}`,
      () => statistics.waiting,
    );
  }

  /**
   * Resolves when everything is settled after `finish`, or, after `signal` is aborted, when the
   * connections have let go of what is not.
   */
  async run(signal: AbortSignal): Promise<void> {
    const over = AbortSignal.any([signal, this.#finished.signal]);
    try {
      const workers = Array.from({ length: this.#config.connections }, () => new Worker());
      await Promise.all(workers.map((worker) => this.#work(worker, over)));
    } finally {
      this.#rejections.flush();
      this.#sensorWarnings.flush();
    }
  }

  /** To be called once nothing more comes in: what waits is still stored, then `run` resolves. */
  finish(): void {
    this.#inbox.close();
    this.#endIfFinished();
  }

  #endIfFinished(): void {
    if (this.#inbox.closed && this.#statistics.waiting === 0) this.#finished.abort();
  }

  /** Keeps one connection at work, and opens another whenever it fails. */
  async #work(worker: Worker, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const reason = await this.#serve(worker, signal);
      if (signal.aborted) return;
      await this.#outage.failed(worker, { reason, delayMs: worker.backoff.nextDelayMs(), signal });
    }
  }

  /** Opens a connection and stores through it for as long as it works. Returns why it ended. */
  async #serve(worker: Worker, signal: AbortSignal): Promise<string> {
    let connection: DatabaseConnection | undefined;
    try {
      connection = await DatabaseConnection.open(this.#config, signal);
      const catalogue = await connection.readCatalogue();
      // While something waits, only its storing can tell whether the database takes rows.
      if (this.#statistics.waiting === 0) this.#succeeded(worker, catalogue);
      await this.#drain(worker, { connection, catalogue, signal });
      return "stopped";
    } catch (error) {
      return describeError(error);
    } finally {
      await connection?.close();
    }
  }

  /** Stores batch after batch until `signal` is aborted; rejects when the connection fails. */
  async #drain(
    worker: Worker,
    { connection, catalogue, signal }: {
      readonly connection: DatabaseConnection;
      readonly catalogue: Catalogue;
      readonly signal: AbortSignal;
    },
  ): Promise<void> {
    const stop = AbortSignal.any([connection.lost, signal]);
    // An insert that hangs must not outlive the shutdown.
    const cut = (): void => connection.cut();
    signal.addEventListener("abort", cut);
    try {
      while (!signal.aborted) {
        if (worker.batch.length === 0) worker.batch = await this.#inbox.take(MAX_BATCH_ROWS, stop);
        if (connection.lost.aborted) throw new Error("the server closed the connection");
        await this.#store(this.#decode(worker.batch, catalogue), connection);
        worker.batch = [];
        this.#succeeded(worker, catalogue);
        this.#endIfFinished();
      }
    } finally {
      signal.removeEventListener("abort", cut);
      worker.batch = worker.batch.filter((delivery) => !delivery.settled);
    }
  }

  /** Settles what is not a reading; returns the rest. */
  #decode(deliveries: readonly Delivery[], catalogue: Catalogue): Decoded[] {
    const decoded: Decoded[] = [];
    for (const delivery of deliveries) {
      if (delivery.settled) continue;
      try {
        decoded.push({ delivery, reading: decodeReading(delivery.payload, catalogue) });
      } catch (error) {
        if (!(error instanceof PayloadError)) throw error;
        this.#reject(delivery, error.message);
      }
    }
    return decoded;
  }

  /**
   * Inserts, settles, counts. A batch that the database refuses for its content is halved until
   * the rows at fault are alone: at most 2·log2(n) more statements for each of them.
   */
  async #store(batch: readonly Decoded[], connection: DatabaseConnection): Promise<void> {
    if (batch.length === 0) return;
    let result;
    try {
      result = await connection.insert(batch.map(({ reading }) => reading));
    } catch (error) {
      if (!(error instanceof DatabaseError && error.isContent)) throw error;
      const [first] = batch;
      if (batch.length === 1 && first !== undefined) {
        return this.#reject(first.delivery, `the database refuses it: ${error.message}`);
      }
      const middle = Math.ceil(batch.length / 2);
      await this.#store(batch.slice(0, middle), connection);
      return await this.#store(batch.slice(middle), connection);
    }
    const { outcomes } = this.#statistics;
    outcomes.stored += result.stored;
    outcomes.duplicate += result.duplicates;
    outcomes.unknown += result.unknown.length;
    outcomes.disabled += result.disabled.length;
    for (const { delivery } of batch) delivery.settle();
    for (const index of result.unknown) this.#reportSensor("unknown", batch[index]);
    for (const index of result.disabled) this.#reportSensor("disabled", batch[index]);
    if (log.isDebug()) logStored(batch, result);
  }

  #reject(delivery: Delivery, reason: string): void {
    this.#statistics.outcomes.rejected++;
    this.#rejections.warning(() =>
      `Rejected a message on '${delivery.topic}': ${reason}. ` +
      `Payload: ${shortenPayload(delivery.payload)}`
    );
    delivery.settle();
  }

  /** Once for each sensor; whoever reads it finds the statement that puts it right. */
  #reportSensor(state: "unknown" | "disabled", decoded: Decoded | undefined): void {
    if (decoded === undefined) return;
    const { reading: { uuid, sid }, delivery: { topic } } = decoded;
    const key = `${state} ${uuid} ${sid}`;
    if (this.#reportedSensors.has(key)) return;
    if (this.#reportedSensors.size >= MAX_REPORTED_SENSORS) this.#reportedSensors.clear();
    this.#reportedSensors.add(key);
    const id = hyphenate(uuid);
    const remedy = state === "unknown"
      ? `INSERT INTO sensors (uuid, sensor_sid, enabled) VALUES ('${id}', ${sid}, true);`
      : `UPDATE sensors SET enabled = true WHERE uuid = '${id}' AND sensor_sid = ${sid};`;
    const what = state === "unknown" ? "is not registered" : "is not enabled";
    this.#sensorWarnings.warning(() =>
      `Sensor ${id} sid ${sid} (topic '${topic}') ${what}, its readings are not stored. ` +
      `To store them: ${remedy}`
    );
  }

  #succeeded(worker: Worker, catalogue: Catalogue): void {
    worker.backoff.reset();
    this.#outage.succeeded(worker);
    if (this.#connected) return;
    this.#connected = true;
    const { name, endpoint } = this.#config;
    log.info(`Connected to database '${name}' at ${describeEndpoint(endpoint)}.`);
    if (!catalogue.uniqueKey) {
      log.warning(
        "The table sensor_data has no unique key on (sensor_id, time): a reading that is sent " +
          "twice is stored twice. To mend it: " +
          "ALTER TABLE sensor_data ADD UNIQUE (sensor_id, time);",
      );
    }
  }
}

/** What one connection has in hand; it stays when the connection is replaced. */
class Worker {
  readonly backoff = new Backoff();
  batch: readonly Delivery[] = [];
}

function logStored(
  batch: readonly Decoded[],
  result: {
    stored: number;
    duplicates: number;
    unknown: readonly number[];
    disabled: readonly number[];
  },
): void {
  const notStored = new Set([...result.unknown, ...result.disabled]);
  const present = result.duplicates === 0 ? "Stored" : "Stored, now or before,";
  for (const [index, { reading }] of batch.entries()) {
    if (!notStored.has(index)) log.debug(`${present} ${describeReading(reading)}.`);
  }
  log.debug(
    `Committed a batch of ${batch.length}: ${result.stored} stored, ` +
      `${result.duplicates} duplicates, ${notStored.size} not stored.`,
  );
}

function describeReading({ timeMicros, uuid, sid, value }: Reading): string {
  return `sensor ${hyphenate(uuid)} sid ${sid}: ${value} at ${Number(timeMicros) / 1e6}`;
}

function hyphenate(uuid: string): string {
  return uuid.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
