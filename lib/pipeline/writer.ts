/**
 * The writer: takes batches from the inbox, decodes and stores them, and settles each delivery once
 * its reading is committed or its rejection reported. The promise of the whole program rests on
 * this order.
 *
 * A batch is decoded when a connection has it, not when it arrives, because what is a valid
 * reading depends on the columns of the table. One batch a connection is under way at a time.
 */

import type { DatabaseConfig } from "../config/config.ts";
import { ConnectionState } from "../common/connection_state.ts";
import { describeEndpoint } from "../common/endpoint.ts";
import type { Catalogue } from "../database/table_columns.ts";
import { DatabaseConnection, type InsertResult } from "../database/connection.ts";
import { ColumnsChangedError, DatabaseError } from "../database/errors.ts";
import type { Delivery } from "../message/delivery.ts";
import type { Batch, Inbox } from "./inbox.ts";
import { FloodGuard, log } from "../common/log.ts";
import { hyphenate, type Reading, shortenPayload } from "../message/reading.ts";
import { RejectedMessages } from "../spool/rejected_messages.ts";
import { Backoff, describeError, Outage } from "../common/retry.ts";
import { type SpoolDatabase, SpoolError } from "../spool/file.ts";
import { registrationSql } from "../database/schema.ts";
import { describeRefusal, type Statistics } from "./statistics.ts";
import type { ConnectionStatus } from "../monitoring/status.ts";
import { type Decoded, decodeReadings, storeReadings } from "../database/storing.ts";
import { UnknownSensors } from "../spool/unknown_sensors.ts";

/** Messages that may wait for another attempt before the table is taken for unusable. */
const MAX_POSTPONED = 100;

/** Sensors remembered as already logged as unknown or disabled, or left out of the log. */
const MAX_REPORTED_SENSORS = 10_000;

export interface WriterOptions {
  readonly inbox: Inbox;
  readonly statistics: Statistics;
  /** Where rejected messages and unknown sensors are recorded, if anywhere. */
  readonly spoolDatabase: SpoolDatabase | undefined;
  /** Told of each insert, in the midst of the work; it must not throw. */
  readonly onInserted: InsertListener | undefined;
}

/** Takes note of readings that have been committed, or were not to be stored. */
export type InsertListener = (batch: readonly Decoded<Delivery>[], result: InsertResult) => void;

/** A delivery that is not stored, and why. */
interface Rejected {
  readonly delivery: Delivery;
  readonly reason: string;
}

/** Stores from `run` until its signal is aborted, or the inbox is closed and empty. */
export class Writer {
  readonly #config: DatabaseConfig;
  readonly #inbox: Inbox;
  readonly #statistics: Statistics;
  readonly #outage: Outage;
  readonly #rejectedMessages: RejectedMessages | undefined;
  readonly #unknownSensors: UnknownSensors | undefined;
  readonly #rejections = new FloodGuard("rejected messages");
  readonly #recordFailures = new FloodGuard("failures to record");
  readonly #sensorWarnings = new FloodGuard("warnings about sensors that are not stored");
  readonly #failures = new FloodGuard("messages that cannot be stored at present");
  /** Deliveries that could not be stored, and are tried again. */
  readonly #failedDeliveries = new WeakSet<Delivery>();
  readonly #reportedSensors = new Set<string>();
  /** Those that were left out of the log since the last line, and are still to be reported. */
  readonly #leftOutSensors = new Set<string>();
  /** Workers whose connection works, and those whose last one or last attempt failed. */
  readonly #serving = new Set<Worker>();
  readonly #failing = new Set<Worker>();
  readonly #onInserted: InsertListener | undefined;
  readonly #state = new ConnectionState();
  #attempts = 0;
  #connected = false;

  constructor(config: DatabaseConfig, options: WriterOptions) {
    const { inbox, statistics, spoolDatabase } = options;
    this.#config = config;
    this.#onInserted = options.onInserted;
    this.#inbox = inbox;
    this.#statistics = statistics;
    this.#rejectedMessages = spoolDatabase && new RejectedMessages(spoolDatabase);
    this.#unknownSensors = spoolDatabase && new UnknownSensors(spoolDatabase);
    this.#outage = new Outage(
      `Database '${config.name}' at ${describeEndpoint(config.endpoint)}`,
      () => this.#countWaiting(),
    );
  }

  /** Resolves when the connections have let go of what they had in hand. */
  async run(signal: AbortSignal): Promise<void> {
    try {
      const workers = Array.from({ length: this.#config.connections }, () => ({
        backoff: new Backoff(),
      }));
      await Promise.all(workers.map((worker) => this.#work(worker, signal)));
    } finally {
      this.keepRecords();
      this.#rejections.flush();
      this.#sensorWarnings.flush();
      this.#recordFailures.flush();
      this.#failures.flush();
    }
  }

  /** Writes down what is only in memory, and deletes what is too old. To be called now and then. */
  keepRecords(): void {
    this.#record("unknown sensors", () => this.#unknownSensors?.flush());
    this.#record("rejected messages", () => this.#rejectedMessages?.prune());
  }

  /** Whether no connection works, and that not only because the first one is not there yet. */
  get isDatabaseAway(): boolean {
    return this.#serving.size === 0 && this.#failing.size > 0;
  }

  /** Whether the database takes what comes, and since when. */
  get connectionStatus(): ConnectionStatus {
    return this.#state.status;
  }

  /** Attempts since the beginning to connect, and to store what was then refused or postponed. */
  get attempts(): number {
    return this.#attempts;
  }

  #countWaiting(): number {
    return this.#statistics.waiting + this.#statistics.spooled;
  }

  /** Keeps one connection at work, and opens another whenever it fails. */
  async #work(worker: Worker, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const reason = await this.#serve(worker, signal);
      if (signal.aborted || reason === undefined) return;
      this.#failing.add(worker);
      if (this.#serving.size === 0) this.#state.down(reason);
      await this.#outage.failed(worker, { reason, delayMs: worker.backoff.nextDelayMs(), signal });
    }
  }

  /**
   * Opens a connection and stores through it for as long as it works. Returns why it failed, or
   * undefined when there is nothing more to store.
   */
  async #serve(worker: Worker, signal: AbortSignal): Promise<string | undefined> {
    let connection: DatabaseConnection | undefined;
    // What hangs must not outlive the shutdown.
    const cut = (): void => connection?.cut();
    signal.addEventListener("abort", cut);
    this.#attempts++;
    try {
      connection = await DatabaseConnection.open(this.#config, signal);
      if (signal.aborted) return undefined;
      const catalogue = await connection.readCatalogue();
      this.#serving.add(worker);
      // While something waits, only its storing can tell whether the database takes rows.
      if (this.#countWaiting() === 0) this.#succeeded(worker, catalogue);
      await this.#drain(worker, { connection, catalogue, signal });
      return undefined;
    } catch (error) {
      return describeError(error);
    } finally {
      signal.removeEventListener("abort", cut);
      this.#serving.delete(worker);
      await connection?.close();
    }
  }

  /** Stores batch after batch until there are no more; rejects when the connection fails. */
  async #drain(worker: Worker, { connection, catalogue, signal }: Session): Promise<void> {
    const stop = AbortSignal.any([connection.lost, signal]);
    for (let batch; (batch = await this.#inbox.take(stop)) !== undefined;) {
      let outcome;
      try {
        outcome = await this.#process(batch, { connection, catalogue });
      } catch (error) {
        const tookTooLong = error instanceof DatabaseError && error.isTimeout;
        this.#inbox.giveBack(batch, { tookTooLong });
        if (!(error instanceof ColumnsChangedError)) throw error;
        catalogue = await connection.readCatalogue();
        log.info(`The column sensor_data.value is of type ${catalogue.value} now.`);
        continue;
      }
      const { isStored, isPostponed } = outcome;
      if (isPostponed) this.#inbox.postpone(batch);
      else this.#inbox.finish(batch, { isStored });
      if (isStored) this.#succeeded(worker, catalogue);
      // Now nothing is left whose storing could tell of the other open connections.
      if (this.#countWaiting() === 0) {
        for (const other of this.#serving) this.#succeeded(other, catalogue);
      }
    }
    if (connection.lost.aborted) throw new Error("the server closed the connection");
  }

  /**
   * Gives every delivery of a batch its outcome, or postpones it; rejects where the connection
   * fails before that.
   */
  async #process(
    batch: Batch,
    { connection, catalogue }: Omit<Session, "signal">,
  ): Promise<Processed> {
    const rejected: Rejected[] = [];
    const refuse = (delivery: Delivery, reason: string): void => {
      rejected.push({ delivery, reason });
    };
    const decoded = decodeReadings(batch.unfinished, catalogue, refuse);
    // What a column could not hold may fit by now.
    if (rejected.length > 0 && await connection.haveColumnsChanged()) {
      throw new ColumnsChangedError();
    }
    let stored = 0;
    let failed = 0;
    try {
      await storeReadings(connection, decoded, {
        onStored: (part, result) => {
          stored += part.length;
          this.#finishStored(part, result);
        },
        onRefused: ({ message }, reason) => {
          // A large batch that is taken apart row by row moves, although nothing is finished yet.
          this.#attempts++;
          refuse(message, reason);
        },
        onFailed: ({ message }, error) => {
          failed++;
          if (this.#inbox.postponedCount + failed > MAX_POSTPONED) throw error;
          this.#noteFailed(message, error);
        },
      });
    } finally {
      this.#finishRejected(rejected);
    }
    // Garbage alone says nothing about the state of the database.
    return { isStored: stored > 0, isPostponed: failed > 0 };
  }

  /** It is kept, and keeps nobody else waiting. */
  #noteFailed(delivery: Delivery, { message }: DatabaseError): void {
    this.#attempts++;
    if (this.#failedDeliveries.has(delivery)) return;
    this.#failedDeliveries.add(delivery);
    this.#failures.warning(() =>
      `A message on '${delivery.topic}' cannot be stored at present: ${message}. It is kept and ` +
      `tried again every ten seconds. Payload: ${shortenPayload(delivery.payload)}`
    );
  }

  #finishStored(batch: readonly Decoded<Delivery>[], result: InsertResult): void {
    const { outcomes } = this.#statistics;
    outcomes.stored += result.stored;
    outcomes.duplicate += result.duplicates;
    outcomes.unknown += result.unknown.length;
    outcomes.disabled += result.disabled.length;
    for (const { message } of batch) message.finish();
    this.#onInserted?.(batch, result);
    for (const index of result.unknown) this.#noteUnknown(batch[index]);
    for (const index of result.disabled) this.#reportSensor("disabled", batch[index]);
    if (log.isDebug()) logStored(batch, result);
  }

  /** Recorded before it is acknowledged, so that no end of the program can hide a rejection. */
  #finishRejected(rejected: readonly Rejected[]): void {
    if (rejected.length === 0) return;
    this.#record("rejected messages", () => {
      this.#rejectedMessages?.add(rejected.map(({ delivery: { topic, payload }, reason }) => ({
        ...{ topic, reason, payload },
      })));
    });
    const { delivery: last, reason: lastReason } = rejected.at(-1) as Rejected;
    this.#statistics.lastRejected = describeRefusal(last.topic, lastReason);
    for (const { delivery, reason } of rejected) {
      this.#statistics.outcomes.rejected++;
      this.#rejections.warning(() =>
        `Rejected a message on '${delivery.topic}': ${reason}. ` +
        `Payload: ${shortenPayload(delivery.payload)}`
      );
      delivery.finish();
    }
  }

  /** The log has it as well: a record that cannot be written must not keep readings back. */
  #record(what: string, write: () => void): void {
    try {
      write();
    } catch (error) {
      if (!(error instanceof SpoolError)) throw error;
      this.#recordFailures.warning(() => `Cannot record ${what}: ${describeError(error)}.`);
    }
  }

  #noteUnknown(decoded: Decoded<Delivery> | undefined): void {
    if (decoded === undefined) return;
    const { reading: { uuid, sid }, message: { topic, payload } } = decoded;
    const reason = `sensor ${hyphenate(uuid)} sid ${sid} is not registered`;
    this.#statistics.lastUnknown = describeRefusal(topic, reason);
    this.#unknownSensors?.add({ uuid: hyphenate(uuid), sid, topic, payload });
    this.#reportSensor("unknown", decoded);
  }

  /** Once for each sensor; whoever reads it finds the statement that puts it right. */
  #reportSensor(state: "unknown" | "disabled", decoded: Decoded<Delivery> | undefined): void {
    if (decoded === undefined) return;
    const { reading: { uuid, sid }, message: { topic } } = decoded;
    const key = `${state} ${uuid} ${sid}`;
    if (this.#reportedSensors.has(key)) return;
    if (this.#sensorWarnings.isFull && this.#leftOutSensors.has(key)) return;
    const id = hyphenate(uuid);
    const remedy = state === "unknown"
      ? registrationSql({ uuid: id, sid })
      : `UPDATE sensors SET enabled = true WHERE uuid = '${id}' AND sensor_sid = ${sid};`;
    const what = state === "unknown" ? "is not registered" : "is not enabled";
    const isWritten = this.#sensorWarnings.warning(() =>
      `Sensor ${id} sid ${sid} (topic '${topic}') ${what}, its readings are not stored. ` +
      `To store them: ${remedy}`
    );
    // One that was left out has its turn with a later reading.
    if (isWritten) this.#leftOutSensors.clear();
    const remembered = isWritten ? this.#reportedSensors : this.#leftOutSensors;
    if (remembered.size >= MAX_REPORTED_SENSORS) remembered.clear();
    remembered.add(key);
  }

  #succeeded(worker: Worker, catalogue: Catalogue): void {
    worker.backoff.reset();
    this.#failing.delete(worker);
    this.#outage.succeeded(worker);
    if (!this.#state.status.connected) {
      const { name, endpoint } = this.#config;
      this.#state.up(`connected to database '${name}' at ${describeEndpoint(endpoint)}`);
    }
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

/** One connection after the other. */
interface Worker {
  readonly backoff: Backoff;
}

/** What became of a batch. */
interface Processed {
  /** Whether the database took something of it. */
  readonly isStored: boolean;
  /** Whether something of it is to be tried again later. */
  readonly isPostponed: boolean;
}

/** An open connection, what it stores into, and until when. */
interface Session {
  readonly connection: DatabaseConnection;
  readonly catalogue: Catalogue;
  readonly signal: AbortSignal;
}

function logStored(batch: readonly Decoded<Delivery>[], result: InsertResult): void {
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
