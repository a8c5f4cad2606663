/**
 * Readings that the tests send, and the comparison of the table with them.
 */
import type { SqlRow } from "./sql.ts";

/** One reading of one sensor. */
export interface Reading {
  /** Microseconds since 1970 UTC. */
  readonly timeUs: bigint;
  readonly uuid: string;
  readonly sid: number;
  readonly value: number;
}

/** The readings that {@linkcode makeReadings} generates. */
export interface ReadingsOptions {
  readonly count: number;
  /** Sensors to use in turn; 10 by default, see {@linkcode makeSensors}. */
  readonly sensors?: readonly { readonly uuid: string; readonly sid?: number }[];
  /** Time of the first one, in microseconds since 1970; 2023-11-14 22:13:20.123456 by default. */
  readonly startTimeUs?: bigint;
  /** Seed of the random numbers: the same seed gives the same readings. */
  readonly seed?: number;
}

/** Anything with the table: a `TestDatabase`. */
export interface ReadingsTable {
  query<Row extends SqlRow>(sql: string): Promise<Row[]>;
}

/** How {@linkcode expectStored} compares. */
export interface CompareOptions {
  /** Converts a value as the column does: `Math.fround` for `real`; by default unchanged. */
  readonly toStored?: (value: number) => number;
  /** SQL condition that selects the rows to compare, also by columns of `sensors`; all by default. */
  readonly where?: string;
}

const DEFAULT_START_US = 1_700_000_000_123_456n;

/** Sensors with ids that differ from those of another `group`. */
export function makeSensors(count: number, group: number = 0): { uuid: string; sid: number }[] {
  return Array.from({ length: count }, (_, index) => ({
    uuid: `c4ca4238-a0b9-4382-8dcc-${(group * 0x1000000 + index).toString(16).padStart(12, "0")}`,
    sid: index % 3,
  }));
}

/**
 * Generates readings that all differ in sensor or time. Times grow by random steps of less than a
 * second with all six digits in use; values are random doubles over twelve orders of magnitude.
 */
export function makeReadings(options: ReadingsOptions): Reading[] {
  const { count, sensors = makeSensors(10), startTimeUs = DEFAULT_START_US, seed = 1 } = options;
  const random = createRandom(seed);
  let timeUs = startTimeUs;
  return Array.from({ length: count }, (_, index) => {
    const sensor = sensors[index % sensors.length];
    if (sensor === undefined) {
      throw new RangeError("Making readings: needs at least one sensor");
    }
    const value = (random() - 0.5) * 10 ** Math.floor(random() * 12 - 3);
    const reading = { timeUs, uuid: sensor.uuid, sid: sensor.sid ?? 0, value };
    timeUs += BigInt(1 + Math.floor(random() * 999_999));
    return reading;
  });
}

/** The payload of a reading, as the acquisition daemons publish it. */
export function toPayload({ timeUs, uuid, sid, value }: Reading): string {
  // JSON.stringify writes neither NaN nor infinities nor the sign of zero; Python's encoder does.
  const number = Object.is(value, -0) ? "-0.0" : String(value);
  const time = formatSeconds(timeUs);
  return `{"timestamp": ${time}, "uuid": "${uuid}", "sid": ${sid}, "value": ${number}, "unit": "K"}`;
}

/** Microseconds as decimal seconds, all six digits kept. */
export function formatSeconds(timeUs: bigint): string {
  const sign = timeUs < 0n ? "-" : "";
  const digits = String(timeUs < 0n ? -timeUs : timeUs).padStart(7, "0");
  return `${sign}${digits.slice(0, -6)}.${digits.slice(-6)}`;
}

/**
 * Asserts that the table contains exactly these readings, with each time exact to the microsecond and
 * each value exact to the last bit.
 *
 * @throws {Error} with the numbers of missing, different and extra rows, and the first ones.
 * @throws {TypeError} when the readings contradict each other.
 */
export async function expectStored(
  table: ReadingsTable,
  readings: readonly Reading[],
  options: CompareOptions = {},
): Promise<void> {
  const comparison = await compareStored(table, readings, options);
  if (comparison.total > 0) {
    throw new Error(describeDifferences(comparison));
  }
}

/** The result of {@linkcode compareStored}; each list has one text per difference. */
export interface Comparison {
  /** The number of expected readings, and the number of rows. */
  readonly expected: number;
  readonly rows: number;
  readonly missing: readonly string[];
  readonly extra: readonly string[];
  readonly changed: readonly string[];
  /** The number of differences in the three lists. */
  readonly total: number;
}

/**
 * Compares as {@linkcode expectStored} does, and returns the differences.
 *
 * @throws {TypeError} when the readings contradict each other.
 */
export async function compareStored(
  table: ReadingsTable,
  readings: readonly Reading[],
  { toStored = (value) => value, where = "true" }: CompareOptions = {},
): Promise<Comparison> {
  const expected = new Map<string, number>();
  for (const reading of readings) {
    const key = `${reading.uuid} ${reading.sid} ${reading.timeUs}`;
    const value = toStored(reading.value);
    if (!Object.is(expected.get(key) ?? value, value)) {
      throw new TypeError(`Comparing readings: two values for '${key}'`);
    }
    expected.set(key, value);
  }
  const rows = await table.query<{ key: string; value: string }>(`
    SELECT concat_ws(' ', uuid, sensor_sid, (extract(epoch FROM time) * 1000000)::bigint) AS key,
      value::text
    FROM sensor_data JOIN sensors ON sensors.id = sensor_id WHERE ${where} ORDER BY time`);
  return findDifferences(expected, rows);
}

interface StoredRow {
  readonly key: string;
  readonly value: string;
}

function findDifferences(
  expected: ReadonlyMap<string, number>,
  rows: readonly StoredRow[],
): Comparison {
  const left = new Map(expected);
  const extra: string[] = [];
  const changed: string[] = [];
  for (const { key, value } of rows) {
    const sent = left.get(key);
    if (sent === undefined) {
      const reason = expected.has(key) ? "stored twice" : "never sent";
      extra.push(`${key} = ${value}, ${reason}`);
    } else if (!Object.is(sent, Number(value))) {
      changed.push(`${key} = ${value}, sent ${Object.is(sent, -0) ? "-0" : sent}`);
    }
    left.delete(key);
  }
  const missing = [...left].map(([key, value]) => `${key} = ${value}`);
  const total = missing.length + extra.length + changed.length;
  return { expected: expected.size, rows: rows.length, missing, extra, changed, total };
}

function describeDifferences({ expected, rows, missing, extra, changed }: Comparison): string {
  const list = (title: string, entries: readonly string[]): string =>
    entries.length === 0 ? "" : `\n${title}:\n  ${entries.slice(0, 5).join("\n  ")}`;
  return `Comparing the table with ${expected} readings: ${rows} rows, ` +
    `${missing.length} missing, ${extra.length} extra, ${changed.length} with another value` +
    list("First missing (uuid, sid, microseconds)", missing) + list("First extra", extra) +
    list("First with another value", changed);
}

/** A small seeded generator (mulberry32) of numbers from 0 to below 1. */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * The seed for the tests of a file: the value of `KRAKEN_TEST_SEED`, else a random one.
 *
 * @throws {TypeError} when the value is not a whole number.
 */
export function readSeed(): number {
  const text = Deno.env.get("KRAKEN_TEST_SEED");
  if (text === undefined) return Math.floor(Math.random() * 1e9);
  if (!/^\d+$/.test(text)) {
    throw new TypeError(`KRAKEN_TEST_SEED: must be a whole number, received '${text}'`);
  }
  return Number(text);
}

/** Prints the setting that repeats the seed, and the test that uses it: several tests run at a time. */
export function printSeed({ name, origin }: Deno.TestContext, seed: number): void {
  const file = origin.slice(origin.lastIndexOf("/") + 1).replace(/\.ts$/, "");
  // deno-lint-ignore no-console
  console.log(`KRAKEN_TEST_SEED=${seed} (${file}: ${name})`);
}
