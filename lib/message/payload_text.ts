/** Text for the log and for error messages: payloads shortened, values quoted, uuids hyphenated. */

import { Buffer } from "node:buffer";

/** Length of a quoted value, in UTF-16 units; the rest is cut off. */
const MAX_QUOTED_LENGTH = 60;

/** Length of the part of a text payload that is shown, in UTF-16 units. */
const MAX_SHOWN_LENGTH = 200;

/** Length of the part of a binary payload that is shown as hexadecimal digits. */
const MAX_SHOWN_BYTES = 60;

/** `'text'`, cut to 60 UTF-16 units: a value of a payload within an error message. */
export function quoteText(text: string): string {
  return text.length <= MAX_QUOTED_LENGTH ? `'${text}'` : `'${cut(text, MAX_QUOTED_LENGTH)}…'`;
}

/**
 * The beginning of a payload, for the log: as text if it is UTF-8, else as hexadecimal digits. The
 * length in bytes follows if something was cut off. The callers escape control characters.
 */
export function shortenPayload(payload: Buffer): string {
  // UTF-8 needs up to three bytes for each UTF-16 unit.
  const start = payload.subarray(0, 3 * MAX_SHOWN_LENGTH);
  const text = decodeStart(start, start.length < payload.length);
  const shown = text === undefined
    ? `0x${start.toString("hex", 0, MAX_SHOWN_BYTES)}`
    : cut(text, MAX_SHOWN_LENGTH);
  const shownBytes = text === undefined ? MAX_SHOWN_BYTES : Buffer.byteLength(shown);
  return payload.length <= shownBytes ? shown : `${shown}… (${payload.length} bytes)`;
}

/** The usual form of a uuid, with hyphens, from the 32 digits of a `Reading`. */
export function hyphenate(uuid: string): string {
  return uuid.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** The beginning of a text; a surrogate pair at the end is not split. */
function cut(text: string, length: number): string {
  return text.slice(0, length).replace(/[\ud800-\udbff]$/, "");
}

/**
 * The text of UTF-8 bytes; undefined if they are not. With `more`, an incomplete end is dropped.
 */
function decodeStart(bytes: Buffer, more: boolean): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes, {
      stream: more,
    });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return undefined; // Not UTF-8 (Encoding Standard, TextDecoder.decode).
  }
}
