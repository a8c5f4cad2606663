/** Outcomes: counts, records and log lines of each message, and when its delivery is finished. */
import assert from "node:assert/strict";
import { DEFAULT_TUNING } from "../../../lib/config/tuning.ts";
import { decodeReadings } from "../../../lib/database/storing.ts";
import type { Delivery } from "../../../lib/message/delivery.ts";
import { type InsertListener, Outcomes } from "../../../lib/pipeline/outcomes.ts";
import { Statistics } from "../../../lib/pipeline/statistics.ts";
import type { SpoolFile } from "../../../lib/spool/file.ts";
import { COLUMNS, insertResult } from "../../fakes/fake_database.ts";
import { FakeTime } from "../../fakes/fake_time.ts";
import { captureLog, withoutTime } from "../../support/captured_log.ts";
import {
  invalidDelivery,
  readingDeliveries,
  readingDelivery,
  SENSOR,
  statesOf,
} from "../../support/deliveries.ts";
import { refuseWrites, TemporarySpool } from "../../support/temporary_spool.ts";

/** Outcomes, their statistics, and the log. */
function createOutcomes(
  { spoolFile, onInserted }: {
    readonly spoolFile?: SpoolFile;
    readonly onInserted?: InsertListener;
  } = {},
): { outcomes: Outcomes; statistics: Statistics; lines: () => string[] } {
  const captured = captureLog({ level: "INFO" });
  const statistics = new Statistics();
  const outcomes = new Outcomes({
    ...{ statistics, spoolFile, onInserted, tuning: DEFAULT_TUNING },
  });
  return { outcomes, statistics, lines: () => captured.map(withoutTime) };
}

function decode(deliveries: readonly Delivery[]): ReturnType<typeof decodeReadings<Delivery>> {
  return decodeReadings(deliveries, COLUMNS, () => assert.fail("not a reading"));
}

Deno.test("each reading of a committed batch is counted by its outcome and finished", () => {
  using _ = new FakeTime();
  const listened: number[] = [];
  const deliveries = readingDeliveries(10);
  const { outcomes, statistics } = createOutcomes({
    onInserted: (batch, { unknown }) => {
      assert.ok(
        deliveries.every(({ isDone }) => isDone),
        "the listener is called after the outcome",
      );
      listened.push(batch.length, ...unknown);
    },
  });
  outcomes.inserted(
    decode(deliveries),
    insertResult({ stored: 4, duplicates: 3, unknown: [1, 8], disabled: [5] }),
  );
  assert.deepEqual(
    { ...statistics.outcomes },
    { stored: 4, duplicate: 3, unknown: 2, disabled: 1, rejected: 0, dropped: 0 },
  );
  assert.ok(statesOf(deliveries).every((state) => state === "done"));
  assert.deepEqual(listened, [10, 1, 8]);
  assert.equal(statistics.lastUnknown?.topic, "kraken/8");
  outcomes.flush();
});

Deno.test("an unknown or disabled sensor is logged once, with the SQL that helps", () => {
  using time = new FakeTime();
  const { outcomes, lines } = createOutcomes();
  for (let round = 0; round < 3; round++) {
    outcomes.inserted(
      decode(readingDeliveries(3)),
      insertResult({ unknown: [0], disabled: [1, 2] }),
    );
  }
  const [unknown, disabled, other, ...more] = lines();
  assert.equal(
    unknown,
    `WARNING  Sensor ${SENSOR} sid 0 (topic 'kraken/0') is not registered; its readings are not ` +
      "stored. To store them: INSERT INTO sensors (uuid, sensor_sid, enabled) " +
      `VALUES ('${SENSOR}', 0, true);`,
  );
  assert.match(
    disabled ?? "",
    /sid 1 .* is not enabled.*: UPDATE sensors SET enabled = true WHERE .* AND sensor_sid = 1;$/,
  );
  assert.match(other ?? "", /sid 2 .* is not enabled/);
  assert.deepEqual(more, []);
  // A sensor that was disabled and is unknown now needs another remedy.
  outcomes.inserted(decode([readingDelivery(1)]), insertResult({ unknown: [0] }));
  assert.match(lines().at(-1) ?? "", /sid 1 .* is not registered/);
  outcomes.flush();
  assert.equal(time.pending, 0);
});

Deno.test("sensors whose log lines a flood suppressed are logged with a later reading", async () => {
  using time = new FakeTime();
  const { outcomes, lines } = createOutcomes();
  const insert = (): void => {
    const unknown = [...Array(14).keys()];
    outcomes.inserted(decode(readingDeliveries(14)), insertResult({ unknown }));
  };
  insert();
  insert();
  assert.equal(lines().length, 10);
  await time.pass(DEFAULT_TUNING.floodIntervalMs);
  assert.match(lines().at(-1) ?? "", /^WARNING +Suppressed 4 more warnings about sensors whose/);
  insert();
  const logged = lines().filter((line) => line.includes("is not registered"));
  const sids = logged.map((line) => Number(/sid (\d+)/.exec(line)?.[1]));
  assert.deepEqual(sids, [...Array(14).keys()]);
  outcomes.flush();
});

Deno.test("a rejected message is on disk before it is acknowledged", () => {
  using spool = new TemporarySpool();
  using _ = new FakeTime();
  const { outcomes, statistics, lines } = createOutcomes({ spoolFile: spool.open() });
  const rejected = ["a", "b"].map((topic) => ({
    delivery: invalidDelivery(topic),
    reason: `no reading, ${topic}`,
  }));
  const onDisk: unknown[] = [];
  for (const { delivery } of rejected) {
    delivery.onSafe = () =>
      onDisk.push(spool.query("SELECT count(*) AS n FROM rejected")[0]?.["n"]);
  }
  outcomes.rejected([]);
  outcomes.rejected(rejected);
  assert.deepEqual(onDisk, [2, 2], "the record was written before the first acknowledgement");
  const rows = spool.query("SELECT topic, reason, CAST(payload AS TEXT) AS payload FROM rejected");
  assert.deepEqual(rows.map((row) => Object.values(row)), [
    ["a", "no reading, a", "not a reading"],
    ["b", "no reading, b", "not a reading"],
  ]);
  assert.equal(statistics.outcomes.rejected, 2);
  assert.deepEqual([statistics.lastRejected?.topic, statistics.lastRejected?.reason], [
    "b",
    "no reading, b",
  ]);
  assert.deepEqual(lines(), [
    "WARNING  Rejected a message on 'a': no reading, a. Payload: not a reading",
    "WARNING  Rejected a message on 'b': no reading, b. Payload: not a reading",
  ]);
  outcomes.flush();
});

Deno.test("a record that cannot be written is logged, and keeps no message from its outcome", () => {
  using spool = new TemporarySpool();
  using _ = new FakeTime();
  const spoolFile = spool.open();
  const { outcomes, statistics, lines } = createOutcomes({ spoolFile });
  refuseWrites(spoolFile, true);
  const delivery = invalidDelivery();
  outcomes.rejected([{ delivery, reason: "no reading" }]);
  const unknown = readingDelivery(1);
  outcomes.inserted(decode([unknown]), insertResult({ unknown: [0] }));
  outcomes.keepRecords();
  assert.deepEqual([delivery.state, unknown.state], ["done", "done"]);
  assert.deepEqual([statistics.outcomes.rejected, statistics.outcomes.unknown], [1, 1]);
  const failures = lines().filter((line) => line.includes("Cannot record"));
  assert.match(
    failures.join("\n"),
    /Cannot record rejected messages: .*\n.*Cannot record unknown s/,
  );
  refuseWrites(spoolFile, false);
  outcomes.flush();
  const rows = spool.query("SELECT sid, count FROM unknown_sensor");
  assert.deepEqual(rows.map((row) => Object.values(row)), [[1, 1]], "kept until it can be written");
});

Deno.test("a postponed message is logged once, and stays in flight", () => {
  using time = new FakeTime();
  const { outcomes, statistics, lines } = createOutcomes();
  const [one, other] = [readingDelivery(1), readingDelivery(2)];
  outcomes.postponed(one, "internal error");
  outcomes.postponed(one, "internal error");
  outcomes.postponed(other, "internal error");
  assert.deepEqual(statesOf([one, other]), ["in flight", "in flight"]);
  assert.deepEqual([statistics.ended, lines().length], [0, 2]);
  assert.match(lines()[0] ?? "", /^WARNING +A message on 'kraken\/1' .*: internal error\./);
  outcomes.flush();
  assert.equal(time.pending, 0);
});

Deno.test("each stored reading is a DEBUG line, and none is when DEBUG is off", () => {
  using _ = new FakeTime();
  const { outcomes } = createOutcomes();
  const lines = captureLog();
  const batch = decode(readingDeliveries(3));
  outcomes.inserted(batch, insertResult({ stored: 2, disabled: [1] }));
  const debug = lines.map(withoutTime).filter((line) => line.startsWith("DEBUG"));
  assert.deepEqual(debug, [
    `DEBUG    Stored sensor ${SENSOR} sid 0: 1.5 at 1700000000.25.`,
    `DEBUG    Stored sensor ${SENSOR} sid 2: 1.5 at 1700000000.25.`,
    "DEBUG    Committed a batch of 3: 2 stored, 0 duplicates, 1 not stored.",
  ]);
  const quiet = captureLog({ level: "INFO" });
  outcomes.inserted(batch, insertResult({ stored: 3 }));
  assert.deepEqual(quiet, []);
  outcomes.flush();
});
