/** Payloads in the log: shortened, and never cut in the middle of a character. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { hyphenate, quoteText, shortenPayload } from "../../../lib/message/payload_text.ts";

const JSON_TEXT =
  '{"uuid": "c4ca4238-a0b9-4382-8dcc-509a6f75849b", "value": 21.5246, "unit": "°C"}';

Deno.test("shortenPayload shows short payloads whole, and the beginning and length of long ones", () => {
  assert.equal(shortenPayload(Buffer.from(JSON_TEXT)), JSON_TEXT);
  assert.equal(shortenPayload(Buffer.from("x".repeat(200))), "x".repeat(200));
  const long = shortenPayload(Buffer.from("x".repeat(1_000_000)));
  assert.equal(long, `${"x".repeat(200)}… (1000000 bytes)`);
  assert.equal(shortenPayload(Buffer.from([0xff, 0x00, 0x7f])), "0xff007f");
  assert.match(shortenPayload(Buffer.alloc(500, 0xff)), /^0x(ff){60}… \(500 bytes\)$/);
  assert.equal(shortenPayload(Buffer.alloc(0)), "");
});

Deno.test("shortenPayload returns a beginning of the payload and never splits a character", () => {
  const text = fc.string({
    unit: fc.constantFrom("a", "°", "€", "😀", "\0"),
    maxLength: 260,
    size: "max",
  });
  fc.assert(
    fc.property(text, (whole) => {
      const shown = shortenPayload(Buffer.from(whole));
      const start = shown.replace(/… \(\d+ bytes\)$/, "");
      assert.ok(start.length <= 200, `${start.length} characters`);
      assert.ok(start.isWellFormed(), "a surrogate pair was split");
      assert.ok(whole.startsWith(start), `not what was sent: ${JSON.stringify(start.slice(-5))}`);
      assert.ok(start === whole ? shown === whole : shown !== start, "wrong ellipsis");
    }),
    { numRuns: 2_000 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400, size: "max" }), (bytes) => {
    const shown = shortenPayload(Buffer.from(bytes));
    assert.ok(shown.length <= 240 && shown.isWellFormed(), shown);
  }));
});

Deno.test("quoteText cuts long texts and never splits a character", () => {
  assert.equal(quoteText("x".repeat(60)), `'${"x".repeat(60)}'`);
  assert.equal(quoteText("x".repeat(61)), `'${"x".repeat(60)}…'`);
  assert.equal(quoteText("x".repeat(59) + "😀"), `'${"x".repeat(59)}…'`);
});

Deno.test("hyphenate inserts the hyphens of a uuid", () => {
  assert.equal(
    hyphenate("c4ca4238a0b943828dcc509a6f75849b"),
    "c4ca4238-a0b9-4382-8dcc-509a6f75849b",
  );
});
