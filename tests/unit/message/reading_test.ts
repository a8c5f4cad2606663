/** Decoding: which payloads are readings, and that no digit is lost. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import {
  decodeReading,
  PayloadError,
  type Reading,
  type SidType,
  type ValueType,
} from "../../../lib/message/reading.ts";
import { pythonMicros } from "../../support/python_time.ts";

const UUID = "c4ca4238-a0b9-4382-8dcc-509a6f75849b";
const UUID_DIGITS = UUID.replaceAll("-", "");
const FLOATS = ["double precision", "real"] as const;
const INTEGERS = ["smallint", "integer", "bigint"] as const;
const VALUE_TYPES: readonly ValueType[] = [...FLOATS, ...INTEGERS, "numeric"];

interface Columns {
  readonly value?: ValueType;
  readonly sid?: SidType;
}

function decode(payload: string | Uint8Array, columns: Columns = {}): Reading {
  const { value = "double precision", sid = "integer" } = columns;
  return decodeReading(Buffer.from(payload as string), { value, sid });
}

/** A payload with some members replaced by JSON texts; an empty text omits the member. */
function payload(members: Readonly<Record<string, string>> = {}): string {
  const all = { timestamp: "1700000000.5", uuid: `"${UUID}"`, sid: "0", value: "1", ...members };
  const texts = Object.entries(all).filter(([, text]) => text !== "");
  return `{${texts.map(([name, text]) => `"${name}": ${text}`).join(", ")}, "unit": "°C"}`;
}

function valueOf(text: string, type: ValueType): Reading["value"] {
  return decode(payload({ value: text }), { value: type }).value;
}

function microsOf(text: string): bigint {
  return decode(payload({ timestamp: text })).timeMicros;
}

function rejects(text: string | Uint8Array, reason: RegExp, columns?: Columns): void {
  assert.throws(() => decode(text, columns), (error) => {
    assert.ok(error instanceof PayloadError, String(error));
    assert.match(error.message, reason);
    return true;
  }, `accepted: ${text}`);
}

/** Microseconds of a decimal text, computed without the module under test. */
function microsFromText(text: string): bigint {
  const [whole = "", fraction = ""] = text.replace("-", "").split(".");
  const micros = BigInt(whole) * 1_000_000n + BigInt(fraction.padEnd(6, "0"));
  return text.startsWith("-") ? -micros : micros;
}

Deno.test("a payload of LabKraken becomes a reading for every type of column", () => {
  const text = payload({ timestamp: "1700000000.123456", sid: "3", value: "21" });
  for (const value of VALUE_TYPES) {
    assert.deepEqual(decode(text, { value }), {
      timeMicros: 1_700_000_000_123_456n,
      uuid: UUID_DIGITS,
      sid: 3,
      value: value === "numeric" ? "21" : (FLOATS as readonly string[]).includes(value) ? 21 : 21n,
    });
  }
});

Deno.test("a timestamp is a number of seconds, as number or text, before 1970 too", () => {
  const cases: [string, bigint][] = [
    ["0", 0n],
    ["1700000000", 1_700_000_000_000_000n],
    ["-1.5", -1_500_000n],
    ["1.7e9", 1_700_000_000_000_000n],
    ["1E-6", 1n],
    ["0.0000004", 0n],
    ["0.0000006", 1n],
    ["-0.0000006", -1n],
    ['"1700000000.123456"', 1_700_000_000_123_456n],
    ['" -0.25 "', -250_000n],
    ['"+.5"', 500_000n],
    ['"7."', 7_000_000n],
    ['"1e3"', 1_000_000_000n],
    ["-62135596800", -62_135_596_800_000_000n],
    ["253402300799", 253_402_300_799_000_000n],
    ["0e999999999", 0n],
  ];
  for (const [text, micros] of cases) assert.equal(microsOf(text), micros, text);
});

Deno.test("timestamps that are missing, not numbers, not finite or out of range are rejected", () => {
  rejects(payload({ timestamp: "" }), /^timestamp is missing$/);
  const notNumbers = ["null", "true", "[]", "{}", '""', '"now"', '"0x10"', '"1,5"', '"1 2"', '"."'];
  for (const timestamp of notNumbers) rejects(payload({ timestamp }), /^timestamp is /);
  for (const timestamp of ["NaN", "Infinity", "-Infinity", "1e400", '"NaN"', '"1e999"']) {
    rejects(payload({ timestamp }), /^timestamp is '.*', not a finite number of seconds$/);
  }
  const outside = ["-62135596801", "253402300800", "253402300799.99999", "-1e15", "1e21", "1e300"];
  for (const timestamp of outside) {
    for (const value of VALUE_TYPES) {
      const reason = /^timestamp is '.*', outside of the years 1 to 9999$/;
      rejects(payload({ timestamp }), reason, { value });
      rejects(payload({ timestamp: `"${timestamp}"` }), reason, { value });
    }
  }
  const hints = { milli: "1700000000000", micro: "1700000000000000", nano: "1700000000000000000" };
  for (const [prefix, timestamp] of Object.entries(hints)) {
    rejects(
      payload({ timestamp }),
      new RegExp(`${timestamp}.*looks like ${prefix}seconds; expected`),
    );
    rejects(payload({ timestamp: `"${timestamp}"` }), new RegExp(`looks like ${prefix}seconds`));
  }
});

Deno.test("six decimals of a timestamp are exact until 2106", () => {
  const seconds = fc.oneof(
    fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }),
    fc.bigInt({ min: -(2n ** 32n) + 1n, max: 0n }),
    fc.constantFrom(2n ** 31n - 1n, 2n ** 32n - 1n),
  );
  const fraction = fc.integer({ min: 0, max: 999_999 });
  fc.assert(
    fc.property(seconds, fraction, fc.boolean(), (whole, micros, isText) => {
      const text = `${whole}.${String(micros).padStart(6, "0")}`;
      assert.equal(microsOf(isText ? `"${text}"` : text), microsFromText(text));
    }),
    { numRuns: 5_000 },
  );
});

/** Computed by `datetime.fromtimestamp(float(text), timezone.utc)` of Python 3.11. */
const PYTHON_ROWS: readonly (readonly [text: string, micros: bigint])[] = [
  ["1772546868.1544044", 1772546868154404n],
  ["1700000000.1234565", 1700000000123456n],
  ["1700000000.1234567", 1700000000123457n],
  ["0.0000005", 0n],
  ["0.0000015", 2n],
  ["0.0000025", 2n],
  ["-0.0000005", 0n],
  ["-0.0000015", -2n],
  ["1e-7", 0n],
  ["4294967296.123457", 4294967296123457n],
  ["8589934592.039504", 8589934592039503n],
  ["-8589934592.039504", -8589934592039503n],
  ["253402300799.9999", 253402300799999908n],
  ["0.9999995", 1000000n],
  ["-0.9999995", -1000000n],
  ["1.9999995", 1999999n],
];

Deno.test("a timestamp is stored as Python stores it, for every type of column", () => {
  for (const [text, micros] of PYTHON_ROWS) {
    for (const value of VALUE_TYPES) {
      for (const timestamp of [text, `"${text}"`]) {
        assert.equal(decode(payload({ timestamp }), { value }).timeMicros, micros, text);
      }
    }
    assert.equal(pythonMicros(Number(text)), micros, `the reference: ${text}`);
  }
  const seconds = fc.double({ min: -6e10, max: 2.5e11, noNaN: true });
  const decimals = fc.tuple(
    fc.integer({ min: 1, max: 4e9 }),
    fc.bigInt({ min: 0n, max: 10n ** 9n }),
  )
    .map(([whole, fraction]) => `${whole}.${String(fraction).padStart(9, "0")}`);
  fc.assert(
    fc.property(fc.oneof(seconds.map(String), decimals), fc.boolean(), (text, isText) => {
      for (const value of ["double precision", "numeric"] as const) {
        const timestamp = isText ? `"${text}"` : text;
        const { timeMicros } = decode(payload({ timestamp }), { value });
        assert.equal(timeMicros, pythonMicros(Number(text)), text);
      }
    }),
    { numRuns: 5_000 },
  );
});

Deno.test("a byte-order mark before the object is skipped", () => {
  for (const value of VALUE_TYPES) {
    assert.equal(decode(`\ufeff${payload()}`, { value }).timeMicros, 1_700_000_000_500_000n);
  }
});

Deno.test("a hundred levels of nesting are accepted, and no more, for every type of column", () => {
  const nested = (levels: number): string =>
    payload({ x: `${"[".repeat(levels)}"]]"${"]".repeat(levels)}` });
  for (const value of VALUE_TYPES) {
    assert.equal(decode(nested(99), { value }).sid, 0);
    for (const levels of [100, 20_000]) {
      rejects(nested(levels), /^the payload is JSON nested deeper than 100$/, { value });
    }
  }
});

Deno.test("a uuid may have any common spelling", () => {
  fc.assert(
    fc.property(
      fc.uuid(),
      fc.boolean(),
      fc.boolean(),
      fc.constantFrom("", "urn:uuid:", "URN:UUID:"),
      fc.boolean(),
      (uuid, hyphens, braces, prefix, upper) => {
        const digits = hyphens ? uuid : uuid.replaceAll("-", "");
        const cased = upper ? digits.toUpperCase() : digits;
        const spelt = `"${prefix}${braces ? `{${cased}}` : cased}"`;
        assert.equal(decode(payload({ uuid: spelt })).uuid, uuid.replaceAll("-", ""));
      },
    ),
  );
});

Deno.test("invalid uuids are rejected", () => {
  rejects(payload({ uuid: "" }), /^uuid is missing$/);
  for (const uuid of ["null", "7", "[]", "true"]) rejects(payload({ uuid }), /^uuid is .*string$/);
  const texts = ["", "x", `{${UUID}`, `${UUID}}`, UUID.slice(1), `${UUID}0`, `${UUID.slice(1)}g`];
  const misplaced = `${UUID_DIGITS.slice(0, 8)}-${UUID_DIGITS.slice(8)}`;
  for (const text of [...texts, misplaced, UUID.replaceAll("-", " "), `oid:${UUID}`]) {
    rejects(payload({ uuid: JSON.stringify(text) }), /^uuid is '.*', which is not a UUID$/);
  }
});

Deno.test("a sid is an integer that the column can hold, and 0 when it is missing", () => {
  const sidOf = (sid: string, type: SidType = "integer"): number =>
    decode(payload({ sid }), { sid: type }).sid;
  assert.equal(sidOf(""), 0);
  assert.ok(Object.is(sidOf("-0"), 0));
  for (const [text, sid] of [["7", 7], ["-7", -7], ["2.0", 2], ["1e3", 1000]] as const) {
    assert.equal(sidOf(text), sid);
  }
  assert.equal(sidOf("2147483647"), 2 ** 31 - 1);
  assert.equal(sidOf("-32768", "smallint"), -(2 ** 15));
  assert.equal(sidOf("9007199254740991", "bigint"), Number.MAX_SAFE_INTEGER);
  for (const value of ["double precision", "numeric"] as const) {
    const columns = { value };
    for (const sid of ["null", '"1"', "true", "[1]", "{}"]) {
      rejects(payload({ sid }), /^sid is .*, not an integer$/, columns);
    }
    rejects(payload({ sid: "1.5" }), /^sid is '1.5', not an integer$/, columns);
    for (const sid of ["2147483648", "-2147483649", "1e300", "NaN", "Infinity"]) {
      rejects(payload({ sid }), /^sid is '.*', outside the range of the integer column$/, columns);
    }
    rejects(payload({ sid: "32768" }), /range of the smallint column$/, { value, sid: "smallint" });
  }
});

Deno.test("a value is a number, a boolean, or Python's NaN and Infinity", () => {
  const expected: Record<ValueType, [string, Reading["value"]][]> = {
    "double precision": [
      ["21.5246", 21.5246],
      ["-0", -0],
      ["-0.0", -0],
      ["5e-324", 5e-324],
      ["1.7976931348623157e308", Number.MAX_VALUE],
      ["true", 1],
      ["false", 0],
      ["NaN", NaN],
      ["Infinity", Infinity],
      ["-Infinity", -Infinity],
    ],
    real: [["0.1", Math.fround(0.1)], ["true", 1], ["NaN", NaN], ["-Infinity", -Infinity]],
    numeric: [
      ["0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"],
      ["123456789012345678901234567890", "123456789012345678901234567890"],
      ["1.50", "1.50"],
      ["1e-20", "1e-20"],
      ["true", "1"],
      ["NaN", "NaN"],
      ["-Infinity", "-Infinity"],
    ],
    smallint: [["-32768", -32768n], ["32767", 32767n], ["false", 0n], ["2.50e1", 25n]],
    integer: [["2147483647", 2147483647n], ["-2147483648", -2147483648n], ["7.0", 7n]],
    bigint: [
      ["9223372036854775807", 2n ** 63n - 1n],
      ["-9223372036854775808", -(2n ** 63n)],
      ["9007199254740993", 9007199254740993n],
      ["true", 1n],
    ],
  };
  for (const type of VALUE_TYPES) {
    for (const [text, value] of expected[type]) {
      assert.ok(
        Object.is(valueOf(text, type), value),
        `${text} as ${type}: ${valueOf(text, type)}`,
      );
    }
  }
});

Deno.test("values that are not numbers, or that the column cannot hold, are rejected", () => {
  for (const value of VALUE_TYPES) {
    rejects(payload({ value: "" }), /^value is missing$/, { value });
    for (const text of ["null", '"1"', '"NaN"', "{}", "[1]"]) {
      rejects(payload({ value: text }), /^value is .*, not a number$/, { value });
    }
  }
  const unfit: [ValueType, ...string[]][] = [
    ["double precision", "1e309", "-1e309"],
    ["real", "3.5e38", "-1e39"],
    ["numeric", "1e200000", "1e-200000"],
    ["smallint", "32768", "-32769", "1e300"],
    ["integer", "2147483648", "-2147483649"],
    ["bigint", "9223372036854775808", "-9223372036854775809", "1e400"],
  ];
  for (const [value, ...texts] of unfit) {
    const reason = new RegExp(`^value is '.*', outside the range of the ${value} column$`);
    for (const text of texts) rejects(payload({ value: text }), reason, { value });
  }
  for (const value of INTEGERS) {
    rejects(payload({ value: "1.5" }), /^value is '1.5', .*only rounded$/, { value });
    for (const text of ["NaN", "Infinity", "-Infinity"]) {
      rejects(payload({ value: text }), /^value is '.*', which the \w+ column cannot/, { value });
    }
  }
});

Deno.test("a double keeps every bit, and a numeric every digit", () => {
  const doubles = fc.double({ noNaN: true, noDefaultInfinity: true });
  fc.assert(fc.property(doubles, (number) => {
    const text = Object.is(number, -0) ? "-0.0" : String(number);
    assert.ok(Object.is(valueOf(text, "double precision"), number), text);
    fc.pre(Number.isFinite(Math.fround(number)));
    assert.ok(Object.is(valueOf(text, "real"), Math.fround(number)), text);
  }));
  const decimals = fc.stringMatching(/^-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?(e-?[0-9]{1,3})?$/);
  fc.assert(fc.property(decimals, (text) => assert.equal(valueOf(text, "numeric"), text)));
  const longs = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
  fc.assert(fc.property(longs, (long) => assert.equal(valueOf(String(long), "bigint"), long)));
});

Deno.test("other members, and literals within strings, are ignored", () => {
  const extra = { unit: '"NaN"', "a\\nInfinity": '["-Infinity", NaN, {"b": "\\"NaN"}]' };
  for (const value of VALUE_TYPES) {
    const { timeMicros, uuid } = decode(payload(extra), { value });
    assert.deepEqual([timeMicros, uuid], [1_700_000_000_500_000n, UUID_DIGITS]);
  }
});
