/** `kraken-logger rejected`: lists the messages that were not stored, and sends them again. */

import { isUtf8 } from "node:buffer";
import { describeError } from "../common/error_text.ts";
import { escapeControls, formatTime } from "../common/text.ts";
import type { SpoolConfig, StorageConfig } from "../config/config.ts";
import type { TableColumns } from "../database/table_columns.ts";
import { DatabaseConnection } from "../database/connection.ts";
import { DatabaseError } from "../database/errors.ts";
import { describeEndpoint } from "../common/endpoint.ts";
import { shortenPayload } from "../message/reading.ts";
import { type RejectedMessage, RejectedMessages } from "../spool/rejected_messages.ts";
import { SpoolDatabase } from "../spool/file.ts";
import { decodeReadings, storeReadings } from "../database/storing.ts";
import { isMatch } from "../message/topic_filter.ts";

/** Messages read from the record, and sent to the database, at once. */
const CHUNK = 500;

/** Which messages. */
export interface RejectedSelection {
  /** Rejected then or later, in ms since 1970-01-01 00:00 UTC. */
  readonly sinceMs?: number;
  /** A topic filter. */
  readonly topic?: string;
}

export interface RejectedOptions extends RejectedSelection {
  readonly print: (text: string) => void;
}

/**
 * Prints the messages, oldest first: two lines for each, or a JSON object.
 *
 * @throws {SpoolError} when there is no spool, or it cannot be read.
 */
export function listRejected(
  config: SpoolConfig,
  { print, json, ...selection }: RejectedOptions & { readonly json: boolean },
): void {
  using database = SpoolDatabase.attach(config);
  let count = 0;
  for (const messages of selectChunks(new RejectedMessages(database), selection)) {
    count += messages.length;
    print(messages.map(json ? formatJson : formatText).join(""));
  }
  if (!json) print(count === 0 ? "No rejected messages.\n" : `${describeCount(count)}.\n`);
}

/**
 * Sends the messages to the database and prints what became of each. Those that are stored leave
 * the record. Returns whether the database answered.
 *
 * @throws {SpoolError} when there is no spool, or it cannot be read.
 */
export async function retryRejected(
  config: StorageConfig,
  { print, ...selection }: RejectedOptions,
): Promise<boolean> {
  using database = SpoolDatabase.attach(config.spool);
  const record = new RejectedMessages(database);
  const { name, endpoint } = config.database;
  let connection: DatabaseConnection | undefined;
  let count = 0;
  let stored = 0;
  try {
    connection = await DatabaseConnection.open(config.database, new AbortController().signal);
    const columns = await connection.readColumns();
    for (const messages of selectChunks(record, selection)) {
      count += messages.length;
      stored += await retry(messages, { record, connection, columns, print });
    }
    print(`${stored} of ${describeCount(count)} stored.\n`);
    return true;
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    const where = `Database '${name}' at ${describeEndpoint(endpoint)}`;
    print(`PROBLEM  ${where}: ${describeError(error)}. What was not stored is still recorded.\n`);
    return false;
  } finally {
    await connection?.close();
  }
}

/** The selected messages, some at a time. */
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

/** It may have another value, so that this one is still recorded. */
const DUPLICATE = ": the table has a reading of this sensor and time already";

interface RetryContext {
  readonly record: RejectedMessages;
  readonly connection: DatabaseConnection;
  readonly columns: TableColumns;
  readonly print: (text: string) => void;
}

/** Returns how many of the messages are stored now. */
async function retry(
  messages: readonly RejectedMessage[],
  { record, connection, columns, print }: RetryContext,
): Promise<number> {
  const tell = (outcome: string, { timeMs, topic }: RejectedMessage, reason = ""): void =>
    print(`${outcome.padEnd(9)} ${formatTime(timeMs)} ${escapeControls(topic + reason)}\n`);
  const stored: RejectedMessage[] = [];
  const tellRefused = (message: RejectedMessage, reason: string): void =>
    tell("rejected", message, `: ${reason}`);
  // Each on its own: of several together the database does not tell which were there already.
  for (const item of decodeReadings(messages, columns, tellRefused)) {
    const { message } = item;
    await storeReadings(connection, [item], {
      onStored: (_, { unknown, disabled, duplicates }) => {
        if (unknown.length > 0) tell("unknown", message, ": the sensor is not registered");
        else if (disabled.length > 0) tell("disabled", message, ": the sensor is not enabled");
        else if (duplicates > 0) tell("duplicate", message, DUPLICATE);
        else stored.push(message);
      },
      onRejected: (_, reason) => tellRefused(message, reason),
      onFailed: (_, { message: reason }) => tell("failed", message, `: ${reason}`),
    });
  }
  record.delete(stored.map(({ id }) => id));
  for (const message of stored) tell("stored", message);
  return stored.length;
}

function describeCount(count: number): string {
  return `${count} rejected ${count === 1 ? "message" : "messages"}`;
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
