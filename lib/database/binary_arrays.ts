/**
 * Encodes a batch in PostgreSQL's binary array format (`array_send` in the server's source), as one
 * parameter for each column. Values keep every bit, and both sides need less CPU time than for
 * text.
 */

import { Buffer } from "node:buffer";
import type { Reading, ReadingColumns, ValueType } from "../message/reading.ts";

/** Object ids of the element types (`pg_type.dat` in the server's source). */
const OID = {
  int8: 20,
  int2: 21,
  int4: 23,
  text: 25,
  float4: 700,
  float8: 701,
  timestamptz: 1184,
  uuid: 2950,
} as const;

/** 2000-01-01 00:00 UTC, the epoch of PostgreSQL's timestamps, in microseconds since 1970. */
const POSTGRES_EPOCH_MICROS = 946_684_800_000_000n;

/** The four parameters of the insert: times, uuids, sids and values, one element per reading. */
export function encodeBatch(readings: readonly Reading[], columns: ReadingColumns): Buffer[] {
  return [
    encodeFixed(readings, {
      oid: OID.timestamptz,
      bytes: 8,
      write: (out, offset, { timeMicros }) =>
        out.writeBigInt64BE(timeMicros - POSTGRES_EPOCH_MICROS, offset),
    }),
    encodeFixed(readings, {
      oid: OID.uuid,
      bytes: 16,
      write: (out, offset, { uuid }) => out.write(uuid, offset, "hex"),
    }),
    encodeFixed(readings, {
      oid: OID.int8,
      bytes: 8,
      write: (out, offset, { sid }) => out.writeBigInt64BE(BigInt(sid), offset),
    }),
    encodeValues(readings, columns.value),
  ];
}

function encodeValues(readings: readonly Reading[], type: ValueType): Buffer {
  switch (type) {
    case "double precision":
      return encodeFixed(readings, {
        oid: OID.float8,
        bytes: 8,
        write: (out, offset, { value }) => out.writeDoubleBE(value as number, offset),
      });
    case "real":
      return encodeFixed(readings, {
        oid: OID.float4,
        bytes: 4,
        write: (out, offset, { value }) => out.writeFloatBE(value as number, offset),
      });
    case "smallint":
      return encodeFixed(readings, {
        oid: OID.int2,
        bytes: 2,
        write: (out, offset, { value }) => out.writeInt16BE(Number(value), offset),
      });
    case "integer":
      return encodeFixed(readings, {
        oid: OID.int4,
        bytes: 4,
        write: (out, offset, { value }) => out.writeInt32BE(Number(value), offset),
      });
    case "bigint":
      return encodeFixed(readings, {
        oid: OID.int8,
        bytes: 8,
        write: (out, offset, { value }) => out.writeBigInt64BE(value as bigint, offset),
      });
    case "numeric":
      return encodeTexts(readings.map(({ value }) => String(value)));
  }
}

interface FixedElement {
  readonly oid: number;
  readonly bytes: number;
  readonly write: (out: Buffer, offset: number, reading: Reading) => void;
}

function encodeFixed(readings: readonly Reading[], { oid, bytes, write }: FixedElement): Buffer {
  const out = Buffer.allocUnsafe(HEADER_BYTES + readings.length * (4 + bytes));
  let offset = writeHeader(out, oid, readings.length);
  for (const reading of readings) {
    out.writeInt32BE(bytes, offset);
    write(out, offset + 4, reading);
    offset += 4 + bytes;
  }
  return out;
}

function encodeTexts(texts: readonly string[]): Buffer {
  const sizes = texts.reduce((sum, text) => sum + 4 + Buffer.byteLength(text), 0);
  const out = Buffer.allocUnsafe(HEADER_BYTES + sizes);
  let offset = writeHeader(out, OID.text, texts.length);
  for (const text of texts) {
    const bytes = out.write(text, offset + 4);
    out.writeInt32BE(bytes, offset);
    offset += 4 + bytes;
  }
  return out;
}

const HEADER_BYTES = 20;

/** Writes the header: one dimension, no nulls, lower bound 1. Returns the offset after it. */
function writeHeader(out: Buffer, oid: number, length: number): number {
  [1, 0, oid, length, 1].forEach((word, index) => out.writeInt32BE(word, index * 4));
  return HEADER_BYTES;
}
