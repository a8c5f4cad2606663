/** One kind of line cannot flood the log. */
import assert from "node:assert/strict";
import { FloodGuard } from "../../../lib/common/flood_guard.ts";
import { captureLog, withoutTime } from "../../support/captured_log.ts";
import { FakeTime } from "../../fakes/fake_time.ts";

Deno.test("a flood is ten lines a minute, and then the number of lines left out", async () => {
  using time = new FakeTime();
  const lines = captureLog();
  const guard = new FloodGuard("rejected messages");
  let made = 0;
  const warn = (count: number): void => {
    for (let index = 0; index < count; index++) guard.warning(() => `bad ${++made}`);
  };
  warn(3);
  await time.pass(30_000);
  warn(1_000);
  assert.equal(lines.length, 10);
  assert.equal(made, 10, "texts are made only where they are written");
  await time.pass(30_000);
  assert.deepEqual(lines.map(withoutTime).slice(9), [
    "WARNING  bad 10",
    "WARNING  Suppressed 993 more warnings about rejected messages.",
  ]);
  assert.equal(time.pending, 0, "no timer while nothing was left out");
  warn(11);
  assert.equal(lines.length, 21);
  guard.flush();
  assert.match(lines[21] ?? "", /Suppressed 1 more warning about rejected messages/);
  guard.flush();
  assert.equal(lines.length, 22);
  assert.equal(time.pending, 0);
});

Deno.test("ten lines a minute are all written", async () => {
  using time = new FakeTime();
  const lines = captureLog();
  const guard = new FloodGuard("lines");
  for (let minute = 0; minute < 10; minute++) {
    for (let index = 0; index < 10; index++) guard.warning(() => "x");
    await time.pass(60_000);
  }
  assert.equal(lines.length, 100);
});

Deno.test("each guard counts its own lines, and says when it leaves lines out", () => {
  using _ = new FakeTime();
  const lines = captureLog();
  const [rejections, drops] = [new FloodGuard("rejected messages"), new FloodGuard("drops")];
  const written = Array.from({ length: 11 }, () => rejections.warning(() => "rejected"));
  assert.deepEqual(written, [...Array(10).fill(true), false]);
  assert.deepEqual([rejections.isFull, drops.isFull], [true, false]);
  assert.equal(drops.warning(() => "dropped"), true);
  rejections.flush();
  drops.flush();
  assert.deepEqual(lines.map(withoutTime).slice(10), [
    "WARNING  dropped",
    "WARNING  Suppressed 1 more warning about rejected messages.",
  ]);
  assert.equal(rejections.isFull, false);
});
