import assert from "node:assert/strict";
import { DEFAULT_TUNING } from "../../../lib/config/tuning.ts";
import { type ConnectionEnd, ReconnectPolicy } from "../../../lib/mqtt/reconnect_policy.ts";

const SILENT: ConnectionEnd = { heldMs: 1_000, takenOver: false, unexplained: true };

function suspectedAfter(ends: readonly (ConnectionEnd | "refused")[]): boolean {
  const policy = new ReconnectPolicy(DEFAULT_TUNING);
  for (const end of ends) end === "refused" ? policy.refused() : policy.ended(end);
  return policy.isTakeoverSuspected;
}

Deno.test("five connections in a row that end soon and without a reason look like takeovers", () => {
  assert.equal(suspectedAfter(Array(4).fill(SILENT)), false);
  assert.equal(suspectedAfter(Array(5).fill(SILENT)), true);
});

Deno.test("connections that hold, that end for a reason or after a refusal are not suspicious", () => {
  const others: readonly (ConnectionEnd | "refused")[] = [
    "refused",
    { ...SILENT, heldMs: 30_000 },
    { ...SILENT, unexplained: false },
  ];
  for (const other of others) {
    assert.equal(suspectedAfter([...Array(4).fill(SILENT), other, SILENT]), false);
  }
});

Deno.test("a suspicion lasts until a connection has held for two minutes", () => {
  const policy = new ReconnectPolicy(DEFAULT_TUNING);
  for (let end = 0; end < 5; end++) policy.ended(SILENT);
  policy.ended({ ...SILENT, heldMs: 119_000 });
  assert.equal(policy.isTakeoverSuspected, true);
  policy.ended({ ...SILENT, heldMs: 120_000 });
  assert.equal(policy.isTakeoverSuspected, false);
});

Deno.test("the next connection is doubted the longer the worse the last one was", () => {
  const policy = new ReconnectPolicy(DEFAULT_TUNING);
  const ends: readonly ConnectionEnd[] = [
    { ...SILENT, heldMs: 10_000 },
    { ...SILENT, heldMs: 10 },
    { ...SILENT, takenOver: true, unexplained: false },
    { ...SILENT, heldMs: 10_000 },
  ];
  const doubtsMs = ends.map((end) => {
    policy.ended(end);
    return policy.doubtMs;
  });
  assert.deepEqual(doubtsMs, [0, 500, 120_000, 120_000]);
});

Deno.test("two clients that take the session from each other get slower, up to a minute", () => {
  const policy = new ReconnectPolicy(DEFAULT_TUNING);
  const delaysMs = Array.from({ length: 20 }, () => policy.ended(SILENT));
  const late = delaysMs.slice(-5);
  assert.ok(late.every((delayMs) => delayMs >= 30_000 && delayMs <= 60_000), late.join());
  assert.ok(delaysMs[5] as number < 2_001);
});
