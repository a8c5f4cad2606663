/**
 * Payloads that are not readings, by accident or on purpose: each is rejected with a reason, and
 * quickly.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import {
  decodeReading,
  MAX_PAYLOAD_BYTES,
  PayloadError,
  type ValueType,
} from "../../../lib/message/reading.ts";

const VALID = '{"timestamp": 1700000000.123456, "uuid": "c4ca4238-a0b9-4382-8dcc-509a6f75849b", ' +
  '"sid": 0, "value": 21.5246, "unit": "°C"}';
const VALUE_TYPES: readonly ValueType[] = [
  "double precision",
  "real",
  "numeric",
  "smallint",
  "integer",
  "bigint",
];

/** The reason why a payload is rejected; undefined if it is accepted. */
function refusal(payload: Uint8Array, value: ValueType = "double precision"): string | undefined {
  try {
    decodeReading(Buffer.from(payload), { value, sid: "integer" });
    return undefined;
  } catch (error) {
    assert.ok(error instanceof PayloadError, `not a PayloadError: ${error}`);
    assert.notEqual(error.message, "");
    return error.message;
  }
}

function refusalOf(text: string, value?: ValueType): string {
  return refusal(Buffer.from(text), value) ?? "accepted";
}

Deno.test("a payload that is not a JSON object is rejected with the reason", () => {
  const cases: [string, RegExp][] = [
    ["", /^the payload is empty$/],
    ["21.5", /^the payload is a number, not a JSON object$/],
    ["null", /^the payload is null, not a JSON object$/],
    ["[1]", /^the payload is an array, not a JSON object$/],
    ['"x"', /^the payload is a string, not a JSON object$/],
    ["NaN", /^the payload is a number, not a JSON object$/],
    [VALID.slice(0, -1), /^the payload is not JSON \(.*\)$/],
    [`${VALID}}`, /^the payload is not JSON \(.*\)$/],
    [VALID.replaceAll('"', "'"), /^the payload is not JSON \(.*\)$/],
    [VALID.replace("21.5246", "+1"), /^the payload is not JSON \(.*\)$/],
    [VALID.replace("21.5246", "-NaN"), /^the payload is not JSON \(.*\)$/],
    [VALID.replace("21.5246", "5NaN"), /^the payload is not JSON \(.*\)$/],
    [VALID.replace("21.5246", "5Infinity"), /^the payload is not JSON \(.*\)$/],
    [VALID.replace("21.5246", "5e-Infinity"), /^the payload is not JSON \(.*\)$/],
    [VALID.replace("21.5246", "Infinityx"), /^the payload is not JSON \(.*\)$/],
    [`\ufeff\ufeff${VALID}`, /^the payload is not JSON \(.*\)$/],
    [`${VALID}\0`, /^the payload is not JSON \(.*\)$/],
  ];
  for (const [text, reason] of cases) {
    for (const value of VALUE_TYPES) assert.match(refusalOf(text, value), reason, text);
  }
  assert.equal(refusal(Buffer.from([0x7b, 0xff, 0x7d])), "the payload is not UTF-8");
  assert.equal(refusal(Buffer.from(VALID, "utf16le")), "the payload is not UTF-8");
});

Deno.test("a payload of a megabyte is rejected without parsing", () => {
  const padded = (bytes: number): Buffer => Buffer.from(VALID.padEnd(bytes - 1));
  assert.equal(padded(MAX_PAYLOAD_BYTES).length, MAX_PAYLOAD_BYTES);
  assert.equal(refusal(padded(MAX_PAYLOAD_BYTES)), undefined);
  assert.match(refusal(padded(2 ** 20)) ?? "", /^the payload has 1048576 bytes, more than the /);
});

Deno.test("any bytes are either a reading or a PayloadError", () => {
  const anything = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.string({ unit: "binary" }).map((text) => Buffer.from(text)),
    fc.json().map((text) => Buffer.from(text)),
    fc.jsonValue().map((value) => Buffer.from(VALID.replace("21.5246", JSON.stringify(value)))),
    fc.jsonValue().map((value) => Buffer.from(VALID.replace(/17[\d.]+/, JSON.stringify(value)))),
    fc.jsonValue().map((value) =>
      Buffer.from(VALID.replace('0, "v', `${JSON.stringify(value)}, "v`))
    ),
  );
  const type = fc.constantFrom(...VALUE_TYPES);
  fc.assert(fc.property(anything, type, (bytes, value) => void refusal(bytes, value)), {
    numRuns: 5_000,
  });
});

Deno.test("a valid payload with some bytes changed is either a reading or a PayloadError", () => {
  const pieces = [
    ...'0123456789eE+-."\\{}[],: ',
    "NaN",
    "Infinity",
    "null",
    "e99",
    "\\u0000",
    "\0",
  ];
  const change = fc.record({
    at: fc.nat({ max: VALID.length }),
    remove: fc.nat({ max: 3 }),
    insert: fc.constantFrom(...pieces),
  });
  const changes = fc.array(change, { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(changes, fc.constantFrom(...VALUE_TYPES), (all, value) => {
      const changed = all.reduce(
        (text, { at, remove, insert }) => text.slice(0, at) + insert + text.slice(at + remove),
        VALID,
      );
      refusal(Buffer.from(changed), value);
    }),
    { numRuns: 20_000 },
  );
});

Deno.test("no payload takes long to decode", () => {
  const size = MAX_PAYLOAD_BYTES - 200;
  const digits = "1".repeat(size);
  const payloads: Record<string, string> = {
    "escaped quotes without end": '"'.padEnd(size, '\\"'),
    "quotes": '"'.repeat(size),
    "brackets": "[".repeat(size),
    "objects": '{"a":'.repeat(size / 5),
    "nested in a member": VALID.replace(
      "{",
      `{"x":${"[".repeat(size / 2)}${"]".repeat(size / 2)},`,
    ),
    "escapes in a member": VALID.replace("{", `{"x":"${"\\\\".repeat(size / 2)}",`),
    "infinities": "-Infinity".repeat(size / 9),
    "minus signs": "-".repeat(size),
    "timestamp of digits": VALID.replace(/17[\d.]+/, digits),
    "timestamp text of digits": VALID.replace(/17[\d.]+/, `"${digits}x"`),
    "timestamp text of blanks": VALID.replace(/17[\d.]+/, `"1${" ".repeat(size)}x"`),
    "timestamp of many zeros": VALID.replace(/17[\d.]+/, `1${"0".repeat(size)}e-${size}`),
    "value of digits": VALID.replace("21.5246", digits),
    "value of decimals": VALID.replace("21.5246", `0.${digits}`),
    "value of many zeros": VALID.replace("21.5246", `1${"0".repeat(size)}e-${size}`),
    "value of a huge exponent": VALID.replace("21.5246", `1e${"9".repeat(size)}`),
    "uuid of hyphens": VALID.replace("c4ca", "-".repeat(size)),
  };
  for (const [name, text] of Object.entries(payloads)) {
    for (const value of ["double precision", "numeric", "bigint"] as const) {
      const startMs = performance.now();
      refusal(Buffer.from(text), value);
      const durationMs = performance.now() - startMs;
      assert.ok(durationMs < 500, `${name} as ${value}: ${durationMs.toFixed(0)} ms`);
    }
  }
});
