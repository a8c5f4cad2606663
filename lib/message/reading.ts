/**
 * Decodes the payload of a message to a reading that the columns of the table can hold.
 *
 * Every payload either becomes a `Reading` or is rejected with a `PayloadError` that gives the
 * reason. No digit is lost that the column can hold: if a double would lose digits, the number is
 * taken from the text of the payload. A floating point column gets the nearest number that it can
 * represent, which is 0 for the smallest values.
 */

import { type Buffer, isUtf8 } from "node:buffer";
import { quoteText } from "./payload_text.ts";

/** Types of the `value` column that readings can be stored in (PostgreSQL manual, chapter 8.1). */
export type ValueType =
  | "double precision"
  | "real"
  | "numeric"
  | "smallint"
  | "integer"
  | "bigint";

/** Types of the `sensor_sid` column. */
export type SidType = "smallint" | "integer" | "bigint";

/** The types of the columns that depend on the installation. */
export interface ReadingColumns {
  readonly value: ValueType;
  readonly sid: SidType;
}

/** One value of one sensor at one time. */
export interface Reading {
  /** Microseconds since 1970-01-01 00:00 UTC. */
  readonly timeMicros: bigint;
  /** 32 lowercase hexadecimal digits, without hyphens. */
  readonly uuid: string;
  readonly sid: number;
  /** By column type: number for floating point, decimal text for `numeric`, bigint for integers. */
  readonly value: number | string | bigint;
}

/** The payload is not a reading, or the columns cannot hold it. The message is the reason. */
export class PayloadError extends Error {
  override readonly name = "PayloadError";
}

/** Longer payloads are rejected without parsing; a reading has about 150 bytes. */
export const MAX_PAYLOAD_BYTES = 64 * 1024;

/** Deeper JSON is rejected, whatever the type of the column. */
const MAX_DEPTH = 100;

/** The years 1 to 9999, in seconds since 1970: Python clients cannot read other rows. */
const MIN_SECONDS = -62_135_596_800;
const END_SECONDS = 253_402_300_800;

/** Below this (until the year 2255), microseconds are exact as a double. */
const MAX_EXACT_SECONDS = 2 ** 53 / 1e6 - 1;

/**
 * Timestamps from these values on are probably in a smaller unit: 1e12 in seconds is the year
 * 33658, in milliseconds the year 2001.
 */
const SUSPECT_UNITS: readonly (readonly [number, string])[] = [
  [1e17, "nanoseconds"],
  [1e14, "microseconds"],
  [1e12, "milliseconds"],
];

const INTEGER_RANGES: Readonly<
  Record<"smallint" | "integer" | "bigint", readonly [bigint, bigint]>
> = {
  smallint: [-(2n ** 15n), 2n ** 15n - 1n],
  integer: [-(2n ** 31n), 2n ** 31n - 1n],
  bigint: [-(2n ** 63n), 2n ** 63n - 1n],
};

/** Digits before the decimal point that `numeric` holds (PostgreSQL manual, section 8.1.2). */
const MAX_NUMERIC_EXPONENT = 131_072;

/**
 * Decodes a payload of the form
 * `{"timestamp": 1700000000.123456, "uuid": "c4ca…", "sid": 0, "value": 21.5246, "unit": "°C"}`.
 *
 * A missing `sid` is 0. A `timestamp` may also be a string; booleans are values 0 and 1.
 *
 * @throws {PayloadError} when the payload is not a reading or the columns cannot hold it.
 */
export function decodeReading(payload: Buffer, columns: ReadingColumns): Reading {
  const needsDigits = columns.value === "numeric" || columns.value === "bigint";
  const message = parseMessage(decodeText(payload), { needsDigits });
  return {
    timeMicros: decodeTimestamp(message["timestamp"]),
    uuid: decodeUuid(message["uuid"]),
    sid: decodeSid(message["sid"], columns.sid),
    value: decodeValue(message["value"], columns.value),
  };
}

/**
 * The value and the unit of a payload as text, for display; empty if they are missing, or if the
 * payload is not a JSON object.
 */
export function describeValue(payload: Buffer): { readonly value: string; readonly unit: string } {
  try {
    const { value, unit } = parseMessage(decodeText(payload), { needsDigits: true });
    return { value: toText(value), unit: toText(unit) };
  } catch (error) {
    if (!(error instanceof PayloadError)) throw error;
    return { value: "", unit: "" };
  }
}

function toText(value: unknown): string {
  if (value instanceof NumberText) return value.text;
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "");
}

/** A number as written in the payload, or `NaN`, `Infinity` or `-Infinity`. */
class NumberText {
  constructor(readonly text: string) {}

  toJSON(): number {
    return Number(this.text);
  }
}

type Message = Readonly<Record<string, unknown>>;

function decodeText(payload: Buffer): string {
  if (payload.length === 0) throw new PayloadError("the payload is empty");
  if (payload.length > MAX_PAYLOAD_BYTES) {
    throw new PayloadError(
      `the payload has ${payload.length} bytes, more than the ${MAX_PAYLOAD_BYTES} allowed`,
    );
  }
  if (!isUtf8(payload)) throw new PayloadError("the payload is not UTF-8");
  const text = payload.toString();
  return text.startsWith(BYTE_ORDER_MARK) ? text.slice(1) : text;
}

const BYTE_ORDER_MARK = "\ufeff";

/** Parses a JSON object. With `needsDigits`, its numbers are `NumberText`s. */
function parseMessage(text: string, { needsDigits }: { readonly needsDigits: boolean }): Message {
  return (needsDigits ? undefined : parseFast(text)) ?? parseExact(text);
}

/**
 * Parses with numbers as doubles. Undefined if that is not enough: for a value outside the range of
 * doubles, or text that is not standard JSON.
 */
function parseFast(text: string): Message | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return undefined; // `parseExact` also accepts `NaN`, and reports the syntax error otherwise.
  }
  const message = checkObject(parsed);
  // A reading has no nested value, so that its text need not be searched.
  if (Object.values(message).some((value) => typeof value === "object")) checkDepth(text);
  const { value } = message;
  return value === Infinity || value === -Infinity ? undefined : message;
}

/**
 * The literals that Python's JSON encoder writes for non-finite numbers, and their placeholders
 * while `JSON.parse` runs: spellings of zero that no encoder writes. If a payload contains such a
 * spelling, it is read as the literal.
 */
const LITERALS: ReadonlyMap<string, string> = new Map([
  ["NaN", "-0e-000000001"],
  ["Infinity", "-0e-000000002"],
  ["-Infinity", "-0e-000000003"],
]);
const LITERAL_OF = new Map([...LITERALS].map(([literal, standIn]) => [standIn, literal]));

/** Matches whole strings, too, which stay unchanged: only literals outside of strings count. */
const STRING_OR_LITERAL = /"[^"\\]*(?:\\.[^"\\]*)*"?|-?Infinity\b|\bNaN\b/gs;

/** Parses with numbers as `NumberText`, and accepts `NaN`, `Infinity` and `-Infinity`. */
function parseExact(text: string): Message {
  checkDepth(text);
  const standard = text.replace(STRING_OR_LITERAL, (token) => LITERALS.get(token) ?? token);
  let parsed: unknown;
  try {
    parsed = JSON.parse(standard, (_key, value, context?: { source?: string }) => {
      if (typeof value !== "number") return value;
      const source = context?.source ?? String(value);
      return new NumberText(LITERAL_OF.get(source) ?? source);
    });
  } catch (error) {
    throw new PayloadError(`the payload is not JSON (${describeSyntaxError(error)})`);
  }
  return checkObject(parsed);
}

function describeSyntaxError(error: unknown): string {
  return error instanceof Error
    ? error.message.replace(/, *(?:\.\.\.)?".*"(?:\.\.\.)? is not valid JSON$/s, "").replace(
      / \(line .*\)$/,
      "",
    )
    : String(error);
}

/** Matches whole strings, too: only brackets outside of strings count. */
const STRING_OR_BRACKET = /"[^"\\]*(?:\\.[^"\\]*)*"?|[[\]{}]/gs;

/** The parsers handle any depth differently; one limit makes them the same. */
function checkDepth(text: string): void {
  let depth = 0;
  for (const [token] of text.matchAll(STRING_OR_BRACKET)) {
    if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") depth--;
    if (depth > MAX_DEPTH) {
      throw new PayloadError(`the payload is JSON nested deeper than ${MAX_DEPTH}`);
    }
  }
}

function checkObject(value: unknown): Message {
  if (
    typeof value === "object" && value !== null && !Array.isArray(value) &&
    !(value instanceof NumberText)
  ) {
    return value as Message;
  }
  throw new PayloadError(`the payload is ${describeType(value)}, not a JSON object`);
}

/**
 * Microseconds as Python's `datetime.fromtimestamp(float(x))` computes them, so that a row is equal
 * to that of the earlier Python logger: the double nearest to the text, its fraction times 10^6
 * rounded half to even.
 */
function decodeTimestamp(timestamp: unknown): bigint {
  if (timestamp === undefined) throw new PayloadError("timestamp is missing");
  const text = timestamp instanceof NumberText
    ? timestamp.text
    : typeof timestamp === "string"
    ? timestamp.trim()
    : typeof timestamp === "number"
    ? undefined
    : null;
  if (text === null) {
    throw new PayloadError(`timestamp is ${describeType(timestamp)}, not a number of seconds`);
  }
  const seconds = text === undefined ? timestamp as number : toSeconds(text);
  const quoted = (): string => quoteText(text ?? String(seconds));
  if (!Number.isFinite(seconds)) {
    throw new PayloadError(`timestamp is ${quoted()}, not a finite number of seconds`);
  }
  if (seconds >= MIN_SECONDS && seconds < END_SECONDS) return toMicros(seconds);
  const unit = SUSPECT_UNITS.find(([from]) => seconds >= from && seconds < from * 1e3)?.[1];
  const hint = unit === undefined ? "" : `, which looks like ${unit}; expected seconds since 1970`;
  throw new PayloadError(`timestamp is ${quoted()}${hint || ", outside of the years 1 to 9999"}`);
}

/** The double nearest to a decimal text; NaN if the text is none. */
function toSeconds(text: string): number {
  return /^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : NaN;
}

function toMicros(seconds: number): bigint {
  const whole = Math.trunc(seconds);
  // The difference is exact.
  const fraction = (seconds - whole) * 1e6;
  const nearest = Math.round(fraction);
  const isTie = Math.abs(fraction - nearest) === 0.5;
  const micros = isTie ? 2 * Math.round(fraction / 2) : nearest;
  return Math.abs(seconds) < MAX_EXACT_SECONDS
    ? BigInt(whole * 1e6 + micros)
    : BigInt(whole) * 1_000_000n + BigInt(micros);
}

/**
 * The decimal text rounded half away from zero to an integer, and whether it was one. The caller has
 * checked the magnitude as a double, so that the result cannot have too many digits.
 */
function roundDecimal(text: string): { rounded: bigint; exact: boolean } {
  const [, sign, whole = "", fraction = "", exponent = "0"] =
    /^([+-]?)(\d*)\.?(\d*)(?:e([+-]?\d+))?$/i.exec(text) ?? [];
  const digits = whole + fraction;
  // A zero may have any exponent; padding would add that many zeros.
  if (/^0*$/.test(digits)) return { rounded: 0n, exact: true };
  const point = whole.length + Number(exponent);
  const kept = BigInt(digits.slice(0, Math.max(point, 0)).padEnd(point, "0") || "0");
  const rounded = point >= 0 && (digits[point] ?? "0") >= "5" ? kept + 1n : kept;
  const exact = /^0*$/.test(digits.slice(Math.max(point, 0)));
  return { rounded: sign === "-" ? -rounded : rounded, exact };
}

/** RFC 4122 section 3, and common variants: no hyphens, braces, `urn:uuid:`, any case. */
const UUID =
  /^(?:urn:uuid:)?(\{?)([0-9a-f]{8})(-?)([0-9a-f]{4})\3([0-9a-f]{4})\3([0-9a-f]{4})\3([0-9a-f]{12})(\}?)$/i;

function decodeUuid(uuid: unknown): string {
  if (uuid === undefined) throw new PayloadError("uuid is missing");
  if (typeof uuid !== "string") {
    throw new PayloadError(`uuid is ${describeType(uuid)}, not a string`);
  }
  const match = UUID.exec(uuid);
  if (match === null || match[1]?.length !== match[8]?.length) {
    throw new PayloadError(`uuid is ${quoteText(uuid)}, which is not a UUID`);
  }
  return `${match[2]}${match[4]}${match[5]}${match[6]}${match[7]}`.toLowerCase();
}

function decodeSid(sid: unknown, type: SidType): number {
  if (sid === undefined) return 0;
  const number = sid instanceof NumberText ? Number(sid.text) : sid;
  if (typeof number !== "number") {
    throw new PayloadError(`sid is ${describeType(sid)}, not an integer`);
  }
  const text = sid instanceof NumberText ? sid.text : String(sid);
  if (!Number.isInteger(number) && Number.isFinite(number)) {
    throw new PayloadError(`sid is ${quoteText(text)}, not an integer`);
  }
  const [min, max] = INTEGER_RANGES[type];
  if (!Number.isSafeInteger(number) || number < min || number > max) {
    throw new PayloadError(`sid is ${quoteText(text)}, outside the range of the ${type} column`);
  }
  // JSON allows -0, which must be the same sensor as 0.
  return number + 0;
}

function decodeValue(value: unknown, type: ValueType): number | string | bigint {
  if (value === undefined) throw new PayloadError("value is missing");
  const number = typeof value === "boolean" ? Number(value) : value;
  const text = number instanceof NumberText
    ? number.text
    : typeof number === "number"
    ? String(number)
    : undefined;
  if (text === undefined) throw new PayloadError(`value is ${describeType(value)}, not a number`);
  switch (type) {
    case "double precision":
    case "real":
      return decodeFloat(number as number | NumberText, type);
    case "numeric":
      return decodeNumeric(text);
    default:
      return decodeInteger(text, type);
  }
}

function decodeFloat(value: number | NumberText, type: "double precision" | "real"): number {
  const text = value instanceof NumberText ? value.text : String(value);
  if (LITERALS.has(text)) return Number(text);
  const number = value instanceof NumberText ? Number(value.text) : value;
  const stored = type === "real" ? Math.fround(number) : number;
  if (!Number.isFinite(stored)) throw outOfRange(text, type);
  return stored;
}

/** Unchanged: the database knows the precision and scale of the column. */
function decodeNumeric(text: string): string {
  const exponent = Number(/e([+-]?\d+)$/i.exec(text)?.[1] ?? "0");
  if (Math.abs(exponent) > MAX_NUMERIC_EXPONENT) throw outOfRange(text, "numeric");
  return text;
}

function decodeInteger(text: string, type: "smallint" | "integer" | "bigint"): bigint {
  if (LITERALS.has(text)) {
    throw new PayloadError(`value is ${quoteText(text)}, which the ${type} column cannot hold`);
  }
  if (Math.abs(Number(text)) >= 2 ** 64) throw outOfRange(text, type);
  const { rounded, exact } = roundDecimal(text);
  const [min, max] = INTEGER_RANGES[type];
  if (rounded < min || rounded > max) throw outOfRange(text, type);
  if (!exact) {
    throw new PayloadError(
      `value is ${quoteText(text)}, which the ${type} column can hold only rounded`,
    );
  }
  return rounded;
}

function outOfRange(text: string, type: ValueType): PayloadError {
  return new PayloadError(`value is ${quoteText(text)}, outside the range of the ${type} column`);
}

function describeType(value: unknown): string {
  if (value === null) return "null";
  if (value === undefined) return "missing";
  if (Array.isArray(value)) return "an array";
  if (value instanceof NumberText) return "a number";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}
