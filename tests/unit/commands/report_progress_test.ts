/** The progress lines of a report that takes long. */
import assert from "node:assert/strict";
import { ReportProgress } from "../../../lib/commands/report/progress.ts";

const AT = Date.UTC(2026, 2, 4, 12);

Deno.test("a report that takes less than five seconds has no progress line", () => {
  const progress = new ReportProgress(250, 1_000);
  for (let nowMs = 1_000; nowMs < 6_000; nowMs += 100) {
    assert.equal(progress.tick({ ordinal: 3, reachedMs: AT, nowMs }), undefined);
  }
});

Deno.test("a long report prints its progress at growing intervals of up to a minute", () => {
  const progress = new ReportProgress(250, 1_000);
  const lines: string[] = [];
  const seconds: number[] = [];
  for (let second = 0; second <= 200; second++) {
    const nowMs = 1_000 + 1_000 * second;
    const reachedMs = second === 10 ? undefined : AT + second * 1_000;
    const line = progress.tick({ ordinal: second, reachedMs, nowMs });
    if (line === undefined) continue;
    lines.push(line);
    seconds.push(second);
  }
  assert.deepEqual(seconds, [5, 10, 20, 40, 80, 140, 200]);
  assert.deepEqual(lines.slice(0, 2), [
    "After 5 s: sensor 5 of 250 at 2026-03-04 12:00:05 UTC.",
    "After 10 s: sensor 10 of 250.",
  ]);
});
