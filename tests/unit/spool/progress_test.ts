/** The log lines of a spool that fills and drains. */
import assert from "node:assert/strict";
import type { Spool } from "../../../lib/spool/spool.ts";
import { SpoolProgress } from "../../../lib/spool/progress.ts";
import { captureLog, withoutTime } from "../../support/captured_log.ts";

/** A spool that is only counters, a clock, and the lines since the last call of `lines`. */
class Course {
  readonly #counts = { count: 0, removedCount: 0 };
  readonly #log = captureLog();
  readonly #progress = new SpoolProgress(this.#counts as unknown as Spool);
  #nowMs = 12_345;

  /** Advances the clock, sets the messages in the spool, and adds to those that have left it. */
  after(seconds: number, { count, left = 0 }: { count: number; left?: number }): string[] {
    this.#nowMs += seconds * 1000;
    this.#counts.count = count;
    this.#counts.removedCount += left;
    this.#progress.tick(this.#nowMs);
    return this.#log.splice(0).map(withoutTime);
  }
}

Deno.test("an empty spool is not logged", () => {
  const course = new Course();
  for (let check = 0; check < 5; check++) assert.deepEqual(course.after(100, { count: 0 }), []);
});

Deno.test("a spool that drains within five seconds is logged at DEBUG", () => {
  const course = new Course();
  assert.deepEqual(course.after(0, { count: 3 }), []);
  assert.deepEqual(course.after(4, { count: 9 }), []);
  assert.deepEqual(course.after(0.5, { count: 0, left: 9 }), [
    "DEBUG    The spool is empty again: 9 messages passed through it in 4.5 s.",
  ]);
});

Deno.test("a long outage logs one line, the drain lines at growing intervals, and its end one line", () => {
  const course = new Course();
  course.after(0, { count: 1 });
  assert.deepEqual(course.after(5, { count: 500 }), [
    "INFO     Waiting for the database, with 500 messages in the spool.",
  ]);
  for (let check = 0; check < 10; check++) {
    assert.deepEqual(course.after(30, { count: 1_000 * (check + 1) }), []);
  }
  assert.deepEqual(course.after(9, { count: 9_500, left: 500 }), []);
  assert.deepEqual(course.after(1, { count: 8_000, left: 2_000 }), [
    "INFO     Draining the spool: 8000 messages left, 250 stored per second, 40 s left.",
  ]);
  assert.deepEqual(course.after(19, { count: 7_000, left: 2_000 }), []);
  assert.deepEqual(course.after(1, { count: 6_000, left: 1_000 }), [
    "INFO     Draining the spool: 6000 messages left, 150 stored per second, 60 s left.",
  ]);
  assert.deepEqual(course.after(40, { count: 6_500, left: 2_000 }), [
    "INFO     Draining the spool: 6500 messages left, 50 stored per second, and the spool still grows.",
  ]);
  const [last = "", ...more] = course.after(3, { count: 0, left: 6_500 });
  assert.equal(
    last,
    "INFO     The spool is empty again: 14000 messages passed through it in 378.0 s.",
  );
  assert.deepEqual(more, []);
  assert.deepEqual(course.after(100, { count: 0 }), []);
});

Deno.test("the next outage starts its counts at zero", () => {
  const course = new Course();
  course.after(0, { count: 5 });
  course.after(6, { count: 5 });
  course.after(1, { count: 0, left: 5 });
  course.after(60, { count: 2 });
  assert.deepEqual(course.after(1, { count: 0, left: 2 }), [
    "DEBUG    The spool is empty again: 2 messages passed through it in 1.0 s.",
  ]);
});

Deno.test("the remaining time is in seconds, minutes or hours", () => {
  const left = (count: number): string | undefined => {
    const course = new Course();
    course.after(0, { count: count + 100 });
    course.after(5, { count: count + 100 });
    const [line = ""] = course.after(10, { count, left: 100 });
    return /second, (.*) left/.exec(line)?.[1];
  };
  assert.equal(left(990), "99 s");
  assert.equal(left(1_000), "2 min");
  assert.equal(left(59_000), "99 min");
  assert.equal(left(60_000), "1.7 h");
});
