/** The binary arrays of a batch, read back by a separate decoder and by PostgreSQL. */
import assert from "node:assert/strict";
import type { Buffer } from "node:buffer";
import fc from "fast-check";
import { encodeBatch } from "../../../lib/database/binary_arrays.ts";
import type { Reading, ValueType } from "../../../lib/message/reading.ts";
import { startPostgres } from "../../support/postgres.ts";
import { SqlConnection } from "../../support/sql.ts";

const UUID = "c4ca4238a0b943828dcc509a6f75849b";
const YEAR_275760 = 8_640_000_000_000_000_000n;
const YEAR_4713_BC = -210_866_803_200_000_000n;
const EPOCH_2000 = 946_684_800_000_000n;

function reading(members: Partial<Reading> = {}): Reading {
  return { timeMicros: 0n, uuid: UUID, sid: 0, value: 0, ...members };
}

function encode(readings: readonly Reading[], value: ValueType): Buffer[] {
  return encodeBatch(readings, { value, sid: "integer" });
}

interface ArrayParameter {
  readonly oid: number;
  readonly elements: readonly DataView[];
}

/** Decodes a one-dimensional array without nulls, and asserts every byte of its header. */
function decodeArray(bytes: Buffer): ArrayParameter {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (index: number): number => view.getInt32(index * 4);
  assert.deepEqual([word(0), word(1), word(4)], [1, 0, 1], "dimensions, nulls, lower bound");
  const elements: DataView[] = [];
  let offset = 20;
  for (let index = 0; index < word(3); index++) {
    const length = view.getInt32(offset);
    elements.push(new DataView(bytes.buffer, bytes.byteOffset + offset + 4, length));
    offset += 4 + length;
  }
  assert.equal(offset, bytes.length, "nothing after the last element");
  return { oid: word(2), elements };
}

function decodeColumn<T>(
  readings: readonly Reading[],
  { value, column, read }: { value: ValueType; column: number; read: (element: DataView) => T },
): T[] {
  const parameter = encode(readings, value)[column];
  assert.ok(parameter !== undefined);
  return decodeArray(parameter).elements.map(read);
}

function textOf(element: DataView): string {
  return new TextDecoder().decode(element);
}

Deno.test("a batch has four arrays of the expected types, one element per reading", () => {
  const oids: Record<ValueType, number> = {
    "double precision": 701,
    real: 700,
    numeric: 25,
    smallint: 21,
    integer: 23,
    bigint: 20,
  };
  for (const [type, oid] of Object.entries(oids) as [ValueType, number][]) {
    for (const count of [1, 3, 2000]) {
      const value = type === "bigint" ? 1n : 1;
      const arrays = encode(Array.from({ length: count }, () => reading({ value })), type);
      const decoded = arrays.map(decodeArray);
      assert.deepEqual(decoded.map((array) => array.oid), [1184, 2950, 20, oid]);
      assert.ok(decoded.every((array) => array.elements.length === count));
    }
  }
});

Deno.test("times count microseconds from 2000, uuids have 16 bytes, sids eight", () => {
  const times = [0n, EPOCH_2000, EPOCH_2000 + 1n, -1n, YEAR_275760, YEAR_4713_BC];
  const readings = times.map((timeMicros, index) => reading({ timeMicros, sid: index - 2 }));
  const value = "double precision";
  const longs = (element: DataView): bigint => element.getBigInt64(0);
  assert.deepEqual(
    decodeColumn(readings, { value, column: 0, read: longs }),
    times.map((time) => time - EPOCH_2000),
  );
  assert.deepEqual(
    decodeColumn(readings, { value, column: 2, read: longs }),
    [-2n, -1n, 0n, 1n, 2n, 3n],
  );
  const uuids = decodeColumn(readings.slice(0, 1), {
    value,
    column: 1,
    read: (element) =>
      Array.from(
        { length: element.byteLength },
        (_, index) => element.getUint8(index).toString(16).padStart(2, "0"),
      ).join(""),
  });
  assert.deepEqual(uuids, [UUID]);
});

Deno.test("every value is encoded bit for bit in the type of its column", () => {
  const column = 3;
  const doubles = fc.array(fc.double(), { minLength: 1 });
  fc.assert(fc.property(doubles, (values) => {
    const readings = values.map((value) => reading({ value }));
    const read = (element: DataView): number => element.getFloat64(0);
    const decoded = decodeColumn(readings, { value: "double precision", column, read });
    assert.deepEqual(decoded, values);
  }));
  fc.assert(fc.property(fc.array(fc.float()), (values) => {
    const readings = values.map((value) => reading({ value }));
    const read = (element: DataView): number => element.getFloat32(0);
    assert.deepEqual(decodeColumn(readings, { value: "real", column, read }), values);
  }));
  const bits = { smallint: 16, integer: 32, bigint: 64 } as const;
  for (const [type, size] of Object.entries(bits) as [keyof typeof bits, number][]) {
    const max = 2n ** BigInt(size - 1) - 1n;
    fc.assert(fc.property(fc.array(fc.bigInt({ min: -max - 1n, max })), (values) => {
      const readings = values.map((value) => reading({ value }));
      const read = (element: DataView): bigint =>
        BigInt(
          size === 16
            ? element.getInt16(0)
            : size === 32
            ? element.getInt32(0)
            : element.getBigInt64(0),
        );
      assert.deepEqual(decodeColumn(readings, { value: type, column, read }), values);
    }));
  }
  const numerics = [
    "123456789012345678901234567890",
    "0.1000000000000000055511151231257827",
    "NaN",
  ];
  const readings = numerics.map((value) => reading({ value }));
  assert.deepEqual(decodeColumn(readings, { value: "numeric", column, read: textOf }), numerics);
});

Deno.test("PostgreSQL decodes the arrays, including extreme values", async () => {
  await using postgres = await startPostgres();
  await using connection = await SqlConnection.open(postgres.superuser());
  const ask = async (type: ValueType, values: readonly Reading["value"][], sqlType: string) => {
    const parameter = encode(values.map((value) => reading({ value })), type)[3];
    const sql = `SELECT element::text FROM unnest($1::${sqlType}[]) AS element`;
    const rows = await connection.query<{ element: string }>(sql, [parameter]);
    return rows.map(({ element }) => element);
  };
  await connection.query("SET TimeZone = 'UTC'");
  const times = [0n, 1n, -1n, 1_700_000_000_123_456n, YEAR_275760, YEAR_4713_BC];
  const [timeParameter, uuidParameter, sidParameter] = encode(
    times.map((timeMicros, sid) => reading({ timeMicros, sid })),
    "real",
  );
  const [row] = await connection.query(
    "SELECT $1::timestamptz[]::text[] AS times, ($2::uuid[])[1]::text AS uuid, $3::int8[]::text AS sids",
    [timeParameter, uuidParameter, sidParameter],
  );
  assert.deepEqual(row, {
    times: [
      "1970-01-01 00:00:00+00",
      "1970-01-01 00:00:00.000001+00",
      "1969-12-31 23:59:59.999999+00",
      "2023-11-14 22:13:20.123456+00",
      "275760-09-13 00:00:00+00",
      "4714-11-24 00:00:00+00 BC",
    ],
    uuid: "c4ca4238-a0b9-4382-8dcc-509a6f75849b",
    sids: "{0,1,2,3,4,5}",
  });
  const doubles = [0.1, -0, 1e-320, 5e-324, Number.MAX_VALUE, NaN, Infinity, -Infinity];
  const texts = [
    "0.1",
    "-0",
    "1e-320",
    "5e-324",
    "1.7976931348623157e+308",
    "NaN",
    "Infinity",
    "-Infinity",
  ];
  assert.deepEqual(await ask("double precision", doubles, "float8"), texts);
  assert.deepEqual(await ask("real", [Math.fround(0.1), -0, NaN], "float4"), ["0.1", "-0", "NaN"]);
  assert.deepEqual(await ask("smallint", [-32768n, 32767n], "int2"), ["-32768", "32767"]);
  assert.deepEqual(await ask("integer", [-(2n ** 31n)], "int4"), ["-2147483648"]);
  const longs = [2n ** 63n - 1n, -(2n ** 63n)];
  assert.deepEqual(await ask("bigint", longs, "int8"), longs.map(String));
  const numerics = ["123456789012345678901234567890", "0.1000000000000000055511151231257827"];
  assert.deepEqual(await ask("numeric", numerics, "text"), numerics);
});
