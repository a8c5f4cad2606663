import assert from "node:assert/strict";
import { type End, Reconnection } from "../../../lib/mqtt/reconnect_policy.ts";

const SILENT: End = { heldMs: 1_000, takenOver: false, unexplained: true };

function suspectedAfter(ends: readonly (End | "refused")[]): boolean {
  const reconnection = new Reconnection();
  for (const end of ends) end === "refused" ? reconnection.refused() : reconnection.ended(end);
  return reconnection.isTakeoverSuspected;
}

Deno.test("five connections in a row that end soon and without a reason look like takeovers", () => {
  assert.equal(suspectedAfter(Array(4).fill(SILENT)), false);
  assert.equal(suspectedAfter(Array(5).fill(SILENT)), true);
});

Deno.test("connections that hold, that end for a reason or after a refusal are not suspicious", () => {
  const others: readonly (End | "refused")[] = [
    "refused",
    { ...SILENT, heldMs: 30_000 },
    { ...SILENT, unexplained: false },
  ];
  for (const other of others) {
    assert.equal(suspectedAfter([...Array(4).fill(SILENT), other, SILENT]), false);
  }
});

Deno.test("a suspicion lasts until a connection has held for two minutes", () => {
  const reconnection = new Reconnection();
  for (let end = 0; end < 5; end++) reconnection.ended(SILENT);
  reconnection.ended({ ...SILENT, heldMs: 119_000 });
  assert.equal(reconnection.isTakeoverSuspected, true);
  reconnection.ended({ ...SILENT, heldMs: 120_000 });
  assert.equal(reconnection.isTakeoverSuspected, false);
});

Deno.test("the next connection is doubted the longer the worse the last one was", () => {
  const reconnection = new Reconnection();
  const ends: readonly End[] = [
    { ...SILENT, heldMs: 10_000 },
    { ...SILENT, heldMs: 10 },
    { ...SILENT, takenOver: true, unexplained: false },
    { ...SILENT, heldMs: 10_000 },
  ];
  const doubtsMs = ends.map((end) => {
    reconnection.ended(end);
    return reconnection.doubtMs;
  });
  assert.deepEqual(doubtsMs, [0, 500, 120_000, 120_000]);
});

Deno.test("two clients that take the session from each other get slower, up to a minute", () => {
  const reconnection = new Reconnection();
  const delaysMs = Array.from({ length: 20 }, () => reconnection.ended(SILENT));
  const late = delaysMs.slice(-5);
  assert.ok(late.every((delayMs) => delayMs >= 30_000 && delayMs <= 60_000), late.join());
  assert.ok(delaysMs[5] as number < 2_001);
});
