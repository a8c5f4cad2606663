/** Decodes messages and stores them, row by row if the database refuses the batch as a whole. */

import type { Buffer } from "node:buffer";
import {
  decodeReading,
  PayloadError,
  type Reading,
  type ReadingColumns,
} from "../message/reading.ts";
import type { DatabaseConnection, InsertResult } from "./connection.ts";
import { DatabaseError } from "./errors.ts";

/** A message and its reading. */
export interface Decoded<Message> {
  readonly message: Message;
  readonly reading: Reading;
}

/**
 * Decodes messages in their order. `onRejected` is called for each message that is not a valid
 * reading; `reason` has no full stop.
 */
export function decodeReadings<Message extends { readonly payload: Buffer }>(
  messages: readonly Message[],
  columns: ReadingColumns,
  onRejected: (message: Message, reason: string) => void,
): Decoded<Message>[] {
  const decoded: Decoded<Message>[] = [];
  for (const message of messages) {
    try {
      decoded.push({ message, reading: decodeReading(message.payload, columns) });
    } catch (error) {
      if (!(error instanceof PayloadError)) throw error;
      onRejected(message, error.message);
    }
  }
  return decoded;
}

/** Receives each item of a batch exactly once. */
export interface StoreListener<Item> {
  /** These items were committed, or are duplicate, unknown or disabled; `result` tells which. */
  readonly onStored: (items: readonly Item[], result: InsertResult) => void;
  /** The database rejected this item because of its content; `reason` has no full stop. */
  readonly onRejected: (item: Item, reason: string) => void;
  /**
   * The database did not store this item, but the error shows neither the item nor the server as
   * the cause. An error that this throws is passed on, and the remaining items are not stored.
   */
  readonly onFailed: (item: Item, error: DatabaseError) => void;
}

/**
 * Inserts a batch. If the database rejects it because of its content, the batch is halved until the
 * faulty rows are isolated, with at most 2·log2(n) more statements for each of them. The same holds
 * for an error that some of the rows, or their number, may have caused.
 *
 * @throws {DatabaseError} when the database does not accept rows at the moment. Items that were
 * reported to the listener before have their outcome.
 * @throws {ColumnsChangedError} when the readings must be decoded again.
 */
export async function storeReadings<Item extends { readonly reading: Reading }>(
  connection: Pick<DatabaseConnection, "insert">,
  items: readonly Item[],
  listener: StoreListener<Item>,
): Promise<void> {
  if (items.length === 0) return;
  let result;
  try {
    result = await connection.insert(items.map(({ reading }) => reading));
  } catch (error) {
    if (!(error instanceof DatabaseError) || error.isOfServer) throw error;
    const [first] = items;
    if (items.length === 1 && first !== undefined) {
      if (!error.isContent) return listener.onFailed(first, error);
      return listener.onRejected(first, `the database rejected the reading: ${error.message}`);
    }
    const middle = Math.ceil(items.length / 2);
    await storeReadings(connection, items.slice(0, middle), listener);
    return await storeReadings(connection, items.slice(middle), listener);
  }
  listener.onStored(items, result);
}
