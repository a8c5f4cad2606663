/** `kraken-logger rejected`: lists the rejected messages, and inserts them again. */

import { isUtf8 } from "node:buffer";
import { describeError } from "../common/error_text.ts";
import { escapeControls, formatCount, formatTime } from "../common/text.ts";
import type { SpoolConfig, StorageConfig } from "../config/config.ts";
import type { TableColumns } from "../database/table_columns.ts";
import { DatabaseConnection } from "../database/connection.ts";
import { DatabaseError } from "../database/errors.ts";
import { describeEndpoint } from "../common/endpoint.ts";
import { shortenPayload } from "../message/payload_text.ts";
import { type RejectedMessage, RejectedMessages } from "../spool/rejected_messages.ts";
import { SpoolFile } from "../spool/file.ts";
import { decodeReadings, storeReadings } from "../database/storing.ts";
import { isMatch } from "../message/topic_filter.ts";

/** Messages that are read from the record at a time. */
const CHUNK = 500;

/** Which messages to list or to retry. */
export interface RejectedSelection {
  /** Only messages rejected at this time or later, in ms since 1970-01-01 00:00 UTC. */
  readonly sinceMs?: number;
  /** Only messages whose topic matches this filter. */
  readonly topic?: string;
}

/** The selection, and where to print. */
export interface RejectedOptions extends RejectedSelection {
  readonly print: (text: string) => void;
}

/**
 * Prints the messages, oldest first: two lines for each, or one JSON object with `time` (ISO 8601),
 * `topic`, `reason`, and `payload`, or `payloadBase64` if the payload is not UTF-8.
 *
 * @throws {SpoolError} when there is no spool, or it cannot be read.
 */
export function listRejected(
  config: SpoolConfig,
  { print, json, ...selection }: RejectedOptions & { readonly json: boolean },
): void {
  using spoolFile = SpoolFile.attach(config);
  let count = 0;
  for (const messages of selectChunks(new RejectedMessages(spoolFile), selection)) {
    count += messages.length;
    print(messages.map(json ? formatJson : formatText).join(""));
  }
  if (!json) {
    print(count === 0 ? "No rejected messages.\n" : `${formatCount(count, "rejected message")}.\n`);
  }
}

/**
 * Inserts the messages into the database and prints the outcome of each. Messages that are stored
 * leave the record. Returns false after a failure of the database.
 *
 * @throws {SpoolError} when there is no spool, or it cannot be read.
 */
export async function retryRejected(
  config: StorageConfig,
  { print, ...selection }: RejectedOptions,
): Promise<boolean> {
  using spoolFile = SpoolFile.attach(config.spool);
  const record = new RejectedMessages(spoolFile);
  const { name, endpoint } = config.database;
  let count = 0;
  let stored = 0;
  try {
    await using connection = await DatabaseConnection.open(config.database);
    const columns = await connection.readColumns();
    for (const messages of selectChunks(record, selection)) {
      count += messages.length;
      stored += await retry(messages, { record, connection, columns, print });
    }
    print(`Stored ${stored} of ${formatCount(count, "rejected message")}.\n`);
    return true;
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    const where = `Database '${name}' at ${describeEndpoint(endpoint)}`;
    print(
      `PROBLEM  ${where}: ${
        describeError(error)
      }. The messages that were not stored are still recorded.\n`,
    );
    return false;
  }
}

/** The selected messages, oldest first, in chunks. */
function* selectChunks(
  record: RejectedMessages,
  { sinceMs = 0, topic }: RejectedSelection,
): Generator<RejectedMessage[]> {
  let afterId = 0;
  for (let chunk; (chunk = record.select({ afterId, sinceMs, limit: CHUNK })).length > 0;) {
    afterId = chunk.at(-1)?.id ?? afterId;
    const selected = chunk.filter((message) =>
      topic === undefined || isMatch(topic, message.topic)
    );
    if (selected.length > 0) yield selected;
  }
}

/** The stored value may be another one, so the message stays recorded. */
const DUPLICATE = ": the table already has a reading of this sensor and time";

interface RetryContext {
  readonly record: RejectedMessages;
  readonly connection: DatabaseConnection;
  readonly columns: TableColumns;
  readonly print: (text: string) => void;
}

/** Inserts the messages, one by one. Returns how many were stored. */
async function retry(
  messages: readonly RejectedMessage[],
  { record, connection, columns, print }: RetryContext,
): Promise<number> {
  const printOutcome = (outcome: string, { timeMs, topic }: RejectedMessage, reason = ""): void =>
    print(`${outcome.padEnd(9)} ${formatTime(timeMs)} ${escapeControls(topic + reason)}\n`);
  const stored: RejectedMessage[] = [];
  const printRejected = (message: RejectedMessage, reason: string): void =>
    printOutcome("rejected", message, `: ${reason}`);
  // One by one: of a batch, the database does not report which rows are duplicates.
  for (const item of decodeReadings(messages, columns, printRejected)) {
    const { message } = item;
    await storeReadings(connection, [item], {
      onStored: (_, { unknown, disabled, duplicates }) => {
        if (unknown.length > 0) printOutcome("unknown", message, ": the sensor is not registered");
        else if (disabled.length > 0) {
          printOutcome("disabled", message, ": the sensor is not enabled");
        } else if (duplicates > 0) printOutcome("duplicate", message, DUPLICATE);
        else stored.push(message);
      },
      onRejected: (_, reason) => printRejected(message, reason),
      onFailed: (_, { message: reason }) => printOutcome("failed", message, `: ${reason}`),
    });
  }
  record.delete(stored.map(({ id }) => id));
  for (const message of stored) printOutcome("stored", message);
  return stored.length;
}

function formatText({ timeMs, topic, reason, payload }: RejectedMessage): string {
  const line = escapeControls(`${topic}: ${reason}`);
  return `${formatTime(timeMs)} ${line}\n    ${escapeControls(shortenPayload(payload))}\n`;
}

function formatJson({ timeMs, topic, reason, payload }: RejectedMessage): string {
  const content = isUtf8(payload)
    ? { payload: payload.toString() }
    : { payloadBase64: payload.toString("base64") };
  return `${JSON.stringify({ time: new Date(timeMs).toISOString(), topic, reason, ...content })}\n`;
}
