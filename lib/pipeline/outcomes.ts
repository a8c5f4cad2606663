/**
 * The outcome of each message: counts, records of rejected messages and unknown sensors, log lines.
 * A delivery is finished here, after its reading was committed or its rejection recorded.
 */

import { describeError } from "../common/error_text.ts";
import { FloodGuard } from "../common/flood_guard.ts";
import { log } from "../common/log.ts";
import { formatCount } from "../common/text.ts";
import type { Tuning } from "../config/tuning.ts";
import type { InsertResult } from "../database/connection.ts";
import { registrationSql } from "../database/schema.ts";
import type { Decoded } from "../database/storing.ts";
import type { Delivery } from "../message/delivery.ts";
import { hyphenate, shortenPayload } from "../message/payload_text.ts";
import type { Reading } from "../message/reading.ts";
import { SpoolError } from "../spool/errors.ts";
import type { SpoolFile } from "../spool/file.ts";
import { RejectedMessages } from "../spool/rejected_messages.ts";
import { UnknownSensors } from "../spool/unknown_sensors.ts";
import { createLastRefusal, type Statistics } from "./statistics.ts";

/** Sensors remembered as already logged as unknown or disabled, or suppressed in the log. */
const MAX_LOGGED_SENSORS = 10_000;

/** Receives the readings that were committed, or were not to be stored; must not throw. */
export type InsertListener = (batch: readonly Decoded<Delivery>[], result: InsertResult) => void;

/** A delivery that is not stored, and the reason without a full stop. */
export interface RejectedDelivery {
  readonly delivery: Delivery;
  readonly reason: string;
}

export interface OutcomesOptions {
  readonly statistics: Statistics;
  /** Where rejected messages and unknown sensors are recorded, if anywhere. */
  readonly spoolFile: SpoolFile | undefined;
  readonly onInserted: InsertListener | undefined;
  readonly tuning: Pick<Tuning, "floodIntervalMs">;
}

/** Gives deliveries their outcomes. Call `flush` at the end. */
export class Outcomes {
  readonly #statistics: Statistics;
  readonly #onInserted: InsertListener | undefined;
  readonly #rejectedMessages: RejectedMessages | undefined;
  readonly #unknownSensors: UnknownSensors | undefined;
  readonly #rejections: FloodGuard;
  readonly #recordFailures: FloodGuard;
  readonly #sensorWarnings: FloodGuard;
  readonly #postponements: FloodGuard;
  /** Deliveries that were logged as postponed. */
  readonly #postponed = new WeakSet<Delivery>();
  readonly #loggedSensors = new Set<string>();
  /** Sensors suppressed in the log since the last line; a later reading logs them. */
  readonly #suppressedSensors = new Set<string>();

  constructor({ statistics, spoolFile, onInserted, tuning }: OutcomesOptions) {
    this.#statistics = statistics;
    this.#onInserted = onInserted;
    this.#rejectedMessages = spoolFile && new RejectedMessages(spoolFile);
    this.#unknownSensors = spoolFile && new UnknownSensors(spoolFile);
    this.#rejections = new FloodGuard("rejected messages", tuning);
    this.#recordFailures = new FloodGuard("failures to record", tuning);
    this.#sensorWarnings = new FloodGuard("sensors whose readings are not stored", tuning);
    this.#postponements = new FloodGuard("messages that cannot be stored at present", tuning);
  }

  /** The readings were committed, were there already, or belong to sensors that are not stored. */
  inserted(batch: readonly Decoded<Delivery>[], result: InsertResult): void {
    const { outcomes } = this.#statistics;
    outcomes.stored += result.stored;
    outcomes.duplicate += result.duplicates;
    outcomes.unknown += result.unknown.length;
    outcomes.disabled += result.disabled.length;
    for (const { message } of batch) message.finish();
    this.#onInserted?.(batch, result);
    for (const index of result.unknown) this.#unknown(batch[index]);
    for (const index of result.disabled) this.#warnOfSensor("disabled", batch[index]);
    if (log.isDebug()) logInserted(batch, result);
  }

  /** Records the messages before they are acknowledged, so that a crash cannot hide a rejection. */
  rejected(rejected: readonly RejectedDelivery[]): void {
    const last = rejected.at(-1);
    if (last === undefined) return;
    this.#record("rejected messages", () => {
      this.#rejectedMessages?.add(rejected.map(({ delivery: { topic, payload }, reason }) => ({
        ...{ topic, reason, payload },
      })));
    });
    this.#statistics.lastRejected = createLastRefusal(last.delivery.topic, last.reason);
    for (const { delivery, reason } of rejected) {
      this.#statistics.outcomes.rejected++;
      this.#rejections.warning(() =>
        `Rejected a message on '${delivery.topic}': ${reason}. ` +
        `Payload: ${shortenPayload(delivery.payload)}`
      );
      delivery.finish();
    }
  }

  /** Logs a message that is kept and tried again later; it has no outcome yet. */
  postponed(delivery: Delivery, reason: string): void {
    if (this.#postponed.has(delivery)) return;
    this.#postponed.add(delivery);
    this.#postponements.warning(() =>
      `A message on '${delivery.topic}' cannot be stored at present: ${reason}. It is kept and ` +
      `retried every ten seconds. Payload: ${shortenPayload(delivery.payload)}`
    );
  }

  /** Writes the records that are only in memory, and deletes those that are too old. */
  keepRecords(): void {
    this.#record("unknown sensors", () => this.#unknownSensors?.flush());
    this.#record("rejected messages", () => this.#rejectedMessages?.prune());
  }

  /** Writes the records, and logs how many lines were suppressed. */
  flush(): void {
    this.keepRecords();
    this.#rejections.flush();
    this.#sensorWarnings.flush();
    this.#recordFailures.flush();
    this.#postponements.flush();
  }

  /** The log has the message as well: a failed record must not keep readings from being stored. */
  #record(what: string, write: () => void): void {
    try {
      write();
    } catch (error) {
      if (!(error instanceof SpoolError)) throw error;
      this.#recordFailures.warning(() => `Cannot record ${what}: ${describeError(error)}.`);
    }
  }

  #unknown(decoded: Decoded<Delivery> | undefined): void {
    if (decoded === undefined) return;
    const { reading: { uuid, sid }, message: { topic, payload } } = decoded;
    const reason = `sensor ${hyphenate(uuid)} sid ${sid} is not registered`;
    this.#statistics.lastUnknown = createLastRefusal(topic, reason);
    this.#unknownSensors?.add({ uuid: hyphenate(uuid), sid, topic, payload });
    this.#warnOfSensor("unknown", decoded);
  }

  /** Once for each sensor, with the SQL that makes its readings stored. */
  #warnOfSensor(state: "unknown" | "disabled", decoded: Decoded<Delivery> | undefined): void {
    if (decoded === undefined) return;
    const { reading: { uuid, sid }, message: { topic } } = decoded;
    const key = `${state} ${uuid} ${sid}`;
    if (this.#loggedSensors.has(key)) return;
    if (this.#sensorWarnings.isFull && this.#suppressedSensors.has(key)) return;
    const id = hyphenate(uuid);
    const remedy = state === "unknown"
      ? registrationSql({ uuid: id, sid })
      : `UPDATE sensors SET enabled = true WHERE uuid = '${id}' AND sensor_sid = ${sid};`;
    const what = state === "unknown" ? "is not registered" : "is not enabled";
    const isWritten = this.#sensorWarnings.warning(() =>
      `Sensor ${id} sid ${sid} (topic '${topic}') ${what}; its readings are not stored. ` +
      `To store them: ${remedy}`
    );
    if (isWritten) this.#suppressedSensors.clear();
    const remembered = isWritten ? this.#loggedSensors : this.#suppressedSensors;
    if (remembered.size >= MAX_LOGGED_SENSORS) remembered.clear();
    remembered.add(key);
  }
}

function logInserted(batch: readonly Decoded<Delivery>[], result: InsertResult): void {
  const notStored = new Set([...result.unknown, ...result.disabled]);
  const present = result.duplicates === 0 ? "Stored" : "Stored, now or before,";
  for (const [index, { reading }] of batch.entries()) {
    if (!notStored.has(index)) log.debug(`${present} ${describeReading(reading)}.`);
  }
  log.debug(
    `Committed a batch of ${batch.length}: ${result.stored} stored, ` +
      `${formatCount(result.duplicates, "duplicate")}, ${notStored.size} not stored.`,
  );
}

function describeReading({ timeMicros, uuid, sid, value }: Reading): string {
  return `sensor ${hyphenate(uuid)} sid ${sid}: ${value} at ${Number(timeMicros) / 1e6}`;
}
