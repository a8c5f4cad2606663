/** Decoding messages, and storing them row by row where the database refuses them as a whole. */

import type { Buffer } from "node:buffer";
import type { DatabaseConnection, InsertResult } from "./connection.ts";
import { DatabaseError } from "./errors.ts";
import {
  decodeReading,
  PayloadError,
  type Reading,
  type ReadingColumns,
} from "../message/reading.ts";

/** A message and what it says. */
export interface Decoded<Message> {
  readonly message: Message;
  readonly reading: Reading;
}

/** Decodes messages in their order; those that are no readings are refused, with the reason. */
export function decodeReadings<Message extends { readonly payload: Buffer }>(
  messages: readonly Message[],
  columns: ReadingColumns,
  onRefused: (message: Message, reason: string) => void,
): Decoded<Message>[] {
  const decoded: Decoded<Message>[] = [];
  for (const message of messages) {
    try {
      decoded.push({ message, reading: decodeReading(message.payload, columns) });
    } catch (error) {
      if (!(error instanceof PayloadError)) throw error;
      onRefused(message, error.message);
    }
  }
  return decoded;
}

/** What is told about the parts of a batch, each of which is told of once. */
export interface StoreListener<Item> {
  /** These have been committed, or were not to be stored; indices in `result` count from 0. */
  readonly onStored: (items: readonly Item[], result: InsertResult) => void;
  /** The database refuses this one for its content; `reason` says why. */
  readonly onRefused: (item: Item, reason: string) => void;
  /**
   * The database does not store this one, although nothing is wrong with it or with the server, as
   * far as the error tells. What this throws ends the storing.
   */
  readonly onFailed: (item: Item, error: DatabaseError) => void;
}

/**
 * Inserts a batch. One that the database refuses for its content is halved until the rows at fault
 * are alone: at most 2·log2(n) more statements for each of them. So is one that fails for any other
 * reason that may lie in some of its rows, or in their number.
 *
 * @throws {DatabaseError} when the database does not take rows at the moment; what was told of
 * before is done.
 */
export async function storeReadings<Item extends { readonly reading: Reading }>(
  connection: DatabaseConnection,
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
      return listener.onRefused(first, `the database refuses it: ${error.message}`);
    }
    const middle = Math.ceil(items.length / 2);
    await storeReadings(connection, items.slice(0, middle), listener);
    return await storeReadings(connection, items.slice(middle), listener);
  }
  listener.onStored(items, result);
}
