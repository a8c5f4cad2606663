/** How a report on availability is divided into periods and statements. */
import assert from "node:assert/strict";
import { PartSize, splitPeriods } from "../../../lib/commands/report/availability.ts";

Deno.test("periods are calendar periods in UTC, in every year of four digits", () => {
  const names = (from: string, to: string, by: "day" | "month" | "year"): string[] =>
    splitPeriods(Date.parse(from), Date.parse(to), by).map(({ name }) => name);
  assert.deepEqual(names("2024-02-28T23:59Z", "2024-03-01T00:00:01Z", "day"), [
    ...["2024-02-28", "2024-02-29", "2024-03-01"],
  ]);
  assert.deepEqual(names("2025-10-31T12:00Z", "2026-01-01T00:00Z", "month"), [
    ...["2025-10", "2025-11", "2025-12"],
  ]);
  assert.deepEqual(names("0098-12-31T12:00Z", "0100-01-01T01:00Z", "year"), [
    ...["0098", "0099", "0100"],
  ]);
  const [first, second] = splitPeriods(
    Date.parse("0049-12-31T12:00Z"),
    Date.parse("0050-01-01T12:00Z"),
    "day",
  );
  assert.equal(first?.stopMs, Date.parse("0050-01-01T00:00Z"));
  assert.deepEqual([second?.startMs, second?.stopMs], [
    first?.stopMs,
    Date.parse("0050-01-01T12:00Z"),
  ]);
});

Deno.test("fast statements cover more bins, up to a limit", () => {
  const size = new PartSize();
  const sizes = [size.bins];
  for (let part = 0; part < 8; part++) {
    size.adapt({ bins: size.bins, durationMs: 2 });
    sizes.push(size.bins);
  }
  assert.deepEqual(sizes, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000, 20_000]);
});

Deno.test("statements stay far below the time limit of the server, however slow each bin is", () => {
  for (const msPerBin of [0.006, 0.3, 1, 7, 100, 2_000]) {
    const size = new PartSize();
    const durations: number[] = [];
    for (let part = 0; part < 20; part++) {
      const durationMs = msPerBin * size.bins;
      durations.push(durationMs);
      size.adapt({ bins: size.bins, durationMs });
    }
    const settled = Math.max(...durations.slice(1));
    assert.ok(settled <= Math.max(500, msPerBin), `${msPerBin} ms a bin: ${settled} ms`);
  }
});

Deno.test("a statement that was cut short by its period shrinks the next one only if it was slow", () => {
  const size = new PartSize();
  size.adapt({ bins: 3, durationMs: 10 });
  assert.equal(size.bins, 500);
  size.adapt({ bins: 30, durationMs: 1_000 });
  assert.equal(size.bins, 15);
});
