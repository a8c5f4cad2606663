/** Text for logs and terminals: control characters, counts and times. */
import assert from "node:assert/strict";
import fc from "fast-check";
import {
  escapeControls,
  formatClock,
  formatCount,
  formatLocalTime,
  formatTime,
} from "../../../lib/common/text.ts";

/** Mostly control characters and separators, and any other code unit, lone surrogates included. */
const codeUnit = fc.oneof(
  fc.integer({ min: 0, max: 0xa0 }),
  fc.constantFrom(0x2028, 0x2029),
  fc.integer({ min: 0, max: 0xffff }),
).map((code) => String.fromCharCode(code));

Deno.test("control characters and line separators are escaped, all other text is kept", () => {
  assert.equal(
    escapeControls("a\tb\r\n\u001b[2K\u007f"),
    "a\\u0009b\\u000d\\u000a\\u001b[2K\\u007f",
  );
  assert.equal(escapeControls("\u0085\u009f\u2028\u2029\0"), "\\u0085\\u009f\\u2028\\u2029\\u0000");
  for (const text of ["", "20 °C", "ä\u00a0b", "日本", "🌡", "\\u000a", "\u2027\u202a"]) {
    assert.equal(escapeControls(text), text);
  }
});

Deno.test("escaped text is one line, whatever the text", () => {
  fc.assert(fc.property(fc.string({ unit: codeUnit }), (text) => {
    const escaped = escapeControls(text);
    // deno-lint-ignore no-control-regex
    assert.doesNotMatch(escaped, /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
    assert.equal(escapeControls(escaped), escaped);
    const restored = escaped.replace(/\\u([0-9a-f]{4})/g, (escape, digits: string) => {
      const character = String.fromCharCode(parseInt(digits, 16));
      return escapeControls(character) === escape ? character : escape;
    });
    if (!text.includes("\\u")) assert.equal(restored, text);
  }));
});

Deno.test("the noun of a count is in the plural unless the count is one", () => {
  assert.deepEqual([0, 1, 2].map((count) => formatCount(count, "new message")), [
    "0 new messages",
    "1 new message",
    "2 new messages",
  ]);
});

Deno.test("a time is written in the time zone of the host, with two digits for each part", () => {
  const time = new Date(2026, 0, 2, 3, 4, 5, 6);
  assert.equal(formatLocalTime(time), "2026-01-02 03:04:05.006");
  assert.equal(formatTime(time.getTime()), "2026-01-02 03:04:05");
  assert.equal(formatClock(time.getTime()), "03:04:05");
});

Deno.test("a formatted time reads back as the same time, to the millisecond", () => {
  const times = fc.date({ min: new Date("1971-01-01"), max: new Date("2100-01-01") });
  fc.assert(fc.property(times, (time) => {
    fc.pre(!Number.isNaN(time.getTime()));
    // Without an offset a date and time stand for local time (ECMA-262 section 21.4.1.32). Two
    // times an hour apart have the same text when the clock is set back, so texts are compared.
    const text = formatLocalTime(time);
    assert.equal(formatLocalTime(new Date(Date.parse(text.replace(" ", "T")))), text);
    assert.equal(formatTime(time.getTime()), text.slice(0, 19));
    assert.equal(formatClock(time.getTime()), text.slice(11, 19));
  }));
});
