import assert from "node:assert/strict";
import { Health, type Pulse } from "../../../lib/monitoring/health.ts";

/** Ticks once a second with the pulse of that second; returns the problem at the end. */
function problemAfter(seconds: number, pulseAt: (second: number) => Partial<Pulse>): string {
  let second = 0;
  const idle = { waiting: 0, storing: 0, isBrokerConnected: true, connecting: 0 };
  const health = new Health(() => ({ ...idle, ...pulseAt(second) }));
  for (; second <= seconds; second++) health.tick(second * 1000);
  return health.problem() ?? "none";
}

Deno.test("an idle logger is healthy, however long it is idle", () => {
  assert.equal(problemAfter(10_000, () => ({})), "none");
});

Deno.test("waiting messages are a problem if nothing is stored or tried for 90 s", () => {
  const stuck = (): Partial<Pulse> => ({ waiting: 5 });
  assert.equal(problemAfter(89, stuck), "none");
  assert.match(
    problemAfter(90, stuck),
    /^messages are waiting, but no insert was completed or tried for 90 s$/,
  );
});

Deno.test("an unavailable database with failing attempts is not a problem of the logger", () => {
  const away = (second: number): Partial<Pulse> => ({
    waiting: 5,
    storing: Math.floor(second / 60),
  });
  assert.equal(problemAfter(10_000, away), "none");
});

Deno.test("an unavailable broker is not a problem, but a logger without attempts is", () => {
  const away = (second: number): Partial<Pulse> => ({
    isBrokerConnected: false,
    connecting: Math.floor(second / 75),
  });
  assert.equal(problemAfter(10_000, away), "none");
  const silent = (): Partial<Pulse> => ({ isBrokerConnected: false });
  assert.equal(problemAfter(179, silent), "none");
  assert.match(problemAfter(180, silent), /^no attempt to connect to the broker for 180 s$/);
});

Deno.test("a process that was suspended is not taken for stuck when it resumes", () => {
  const health = new Health(() => ({
    ...{ waiting: 1, storing: 0, isBrokerConnected: false, connecting: 0 },
  }));
  for (const nowMs of [0, 1_000, 2_000, 500_000, 501_000]) health.tick(nowMs);
  assert.equal(health.problem(), undefined);
});
