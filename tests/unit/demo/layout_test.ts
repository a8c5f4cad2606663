/** The layout of the demo's page and table in terminals of every size. */
import assert from "node:assert/strict";
import fc from "fast-check";
import stringWidth from "string-width";
import { formatTable, layOutPage, wrapText } from "../../../demo/layout.ts";
import { INTRODUCTION, makeView } from "./scene.ts";

const LABELS = makeView().sensors.map(({ label }) => label);

Deno.test("the demo's page fits into a terminal of any size, whatever the labels and the log", () => {
  const anyText = fc.string({ unit: "binary" });
  const anyTexts = fc.array(anyText, { maxLength: 5 });
  const anySize = fc.record({
    columns: fc.integer({ min: 1, max: 120 }),
    rows: fc.integer({ min: 1, max: 50 }),
  });
  fc.assert(fc.property(anyTexts, anyTexts, anySize, (labels, log, size) => {
    const lines = layOutPage({ introduction: INTRODUCTION, view: makeView(labels), log }, size);
    assert.ok(lines.length <= size.rows);
    for (const { text } of lines) {
      assert.ok(stringWidth(text) <= size.columns, JSON.stringify(text));
      assert.doesNotMatch(text, /\p{Cc}/u);
    }
  }));
});

Deno.test("the demo's table is complete at 60 columns", () => {
  const [head = "", ...rows] = formatTable(makeView(), 60);
  assert.match(head, /^Sensor +Last value Unit +Age +Rows$/);
  assert.deepEqual(rows.length, LABELS.length);
  rows.forEach((row, index) => assert.ok(row.startsWith(`${LABELS[index]} `), row));
  for (const row of rows) assert.match(row, /12\.3 s +1234$/);
});

Deno.test("the demo's table leaves out the age at 40 columns, and shortens labels", () => {
  const [head = "", ...rows] = formatTable(makeView(), 40);
  assert.match(head, /^Sensor +Last value Unit +Rows$/);
  assert.match(rows[0] ?? "", /^Laboratory temp… +2\d\.\d{3} °C +1234$/);
  assert.match(rows[6] ?? "", /^Radon +\d+\.\d Bq\/m³ +1234$/);
  assert.equal(new Set(rows.map((row) => stringWidth(row))).size, 1);
});

Deno.test("the demo's table keeps its columns aligned beside labels of wide characters", () => {
  const labels = ["Temperature", "温度計", "🌡️ oven", "a\u0301rea", "温度".repeat(20)];
  const [, ...rows] = formatTable(makeView(labels), 80);
  const offsets = rows.map((row) => stringWidth(row.slice(0, row.indexOf(" °C"))));
  assert.equal(rows.length, labels.length);
  assert.equal(new Set(offsets).size, 1, rows.join("\n"));
});

Deno.test("the demo's page shows all sensors, the counts and the status page at 40 by 24", () => {
  const size = { columns: 40, rows: 24 };
  const lines = layOutPage({ introduction: INTRODUCTION, view: makeView(), log: [] }, size);
  const texts = lines.map(({ text }) => text);
  for (const label of LABELS) {
    assert.ok(texts.some((text) => text.startsWith(label.slice(0, 15))), label);
  }
  assert.ok(texts.includes("Status page  http://127.0.0.1:38487/"));
  const all = texts.join(" ").replaceAll(/ +/g, " ");
  assert.match(all, /Readings: published 11106 → received 11106 → stored 11106 → rows 11106/);
});

Deno.test("the demo's page uses the remaining room for the latest log lines", () => {
  const log = Array.from({ length: 30 }, (_, index) => `17:00:00 INFO     Line ${index}.`);
  const size = { columns: 80, rows: 30 };
  const lines = layOutPage({ introduction: INTRODUCTION, view: makeView(), log }, size);
  assert.equal(lines.length, 30);
  assert.deepEqual(lines.slice(-9).map(({ text }) => text), [
    "Log of the logger",
    ...log.slice(-8),
  ]);
});

Deno.test("text is broken between words, and inside a word that is wider than the line", () => {
  assert.deepEqual(wrapText("one two three", 80, "  "), ["one two three"]);
  assert.deepEqual(wrapText("one two three", 8, "  "), ["one two", "  three"]);
  assert.deepEqual(wrapText("abcdefghij kl", 6, "  "), ["abcdef", "  ghij", "  kl"]);
  assert.deepEqual(wrapText("温度計測", 5, ""), ["温度", "計測"]);
  assert.deepEqual(wrapText("", 5, ""), [""]);
});
