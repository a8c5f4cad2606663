import assert from "node:assert/strict";
import { Health, type Pulse } from "../../../lib/monitoring/health.ts";

/** Looks every second for so long, with what the pulse is at each second; returns the problem. */
function problemAfter(seconds: number, pulseAt: (second: number) => Partial<Pulse>): string {
  let second = 0;
  const idle = { waiting: 0, storing: 0, isBrokerConnected: true, connecting: 0 };
  const health = new Health(() => ({ ...idle, ...pulseAt(second) }));
  for (; second <= seconds; second++) health.tick(second * 1000);
  return health.problem() ?? "none";
}

Deno.test("a logger that has nothing to do is well, for however long", () => {
  assert.equal(problemAfter(10_000, () => ({})), "none");
});

Deno.test("messages that wait while nothing is stored or tried are a problem after 90 s", () => {
  const stuck = (): Partial<Pulse> => ({ waiting: 5 });
  assert.equal(problemAfter(89, stuck), "none");
  assert.match(problemAfter(90, stuck), /^messages wait, and none has been .* for 90 s$/);
});

Deno.test("a database that is away, so that each attempt fails, is no problem of the logger", () => {
  const away = (second: number): Partial<Pulse> => ({
    waiting: 5,
    storing: Math.floor(second / 60),
  });
  assert.equal(problemAfter(10_000, away), "none");
});

Deno.test("a broker that is away is no problem, to try no more is one", () => {
  const away = (second: number): Partial<Pulse> => ({
    isBrokerConnected: false,
    connecting: Math.floor(second / 75),
  });
  assert.equal(problemAfter(10_000, away), "none");
  const silent = (): Partial<Pulse> => ({ isBrokerConnected: false });
  assert.equal(problemAfter(179, silent), "none");
  assert.match(problemAfter(180, silent), /^no attempt to connect to the broker for 180 s$/);
});

Deno.test("a program that was stopped itself is not taken for stuck when it goes on", () => {
  const health = new Health(() => ({
    ...{ waiting: 1, storing: 0, isBrokerConnected: false, connecting: 0 },
  }));
  for (const nowMs of [0, 1_000, 2_000, 500_000, 501_000]) health.tick(nowMs);
  assert.equal(health.problem(), undefined);
});
