/** The intake: each message is counted, and only messages of QoS 0 are dropped. */
import assert from "node:assert/strict";
import { DEFAULT_TUNING } from "../../../lib/config/tuning.ts";
import { Inbox } from "../../../lib/pipeline/inbox.ts";
import { Intake } from "../../../lib/pipeline/intake.ts";
import { Statistics } from "../../../lib/pipeline/statistics.ts";
import { FakeTime } from "../../fakes/fake_time.ts";
import { captureLog, withoutTime } from "../../support/captured_log.ts";
import { readingDelivery } from "../../support/deliveries.ts";

interface Scene {
  readonly intake: Intake;
  readonly inbox: Inbox;
  readonly statistics: Statistics;
}

/** An intake in front of an inbox with room for a number of QoS 0 messages. */
function createScene(maxQos0Messages: number): Scene {
  const inbox = new Inbox(undefined, { ...DEFAULT_TUNING, maxQos0Messages });
  const statistics = new Statistics();
  return { inbox, statistics, intake: new Intake({ inbox, statistics }) };
}

Deno.test("a message is counted and put into the inbox", () => {
  captureLog({ level: "INFO" });
  const { intake, inbox, statistics } = createScene(0);
  const deliveries = ([1, 2, 1] as const).map((qos, sid) => readingDelivery(sid, { qos }));
  for (const delivery of deliveries) intake.accept(delivery);
  assert.deepEqual(inbox.peek(10), deliveries);
  assert.deepEqual([statistics.received, statistics.waiting], [3, 3]);
  intake.flush();
});

Deno.test("a message of QoS 0 without room is counted as dropped, one of QoS 1 or 2 is kept", () => {
  using _ = new FakeTime();
  const lines = captureLog({ level: "INFO" });
  const { intake, inbox, statistics } = createScene(2);
  for (const qos of [0, 0, 0, 1, 2, 0] as const) intake.accept(readingDelivery(1, { qos }));
  assert.deepEqual(inbox.peek(10).map(({ qos }) => qos), [0, 0, 1, 2]);
  assert.deepEqual([statistics.received, statistics.outcomes.dropped], [6, 2]);
  assert.equal(statistics.waiting, inbox.inMemory);
  assert.equal(lines.length, 2);
  assert.match(lines[0] ?? "", /WARNING +Dropped a QoS 0 message on 'kraken\/1': neither/);
  intake.flush();
});

Deno.test("a flood of dropped messages is ten lines, and the number of suppressed ones", () => {
  using time = new FakeTime();
  const lines = captureLog({ level: "INFO" });
  const { intake, statistics } = createScene(0);
  for (let count = 0; count < 1_000; count++) intake.accept(readingDelivery(1, { qos: 0 }));
  assert.deepEqual([lines.length, statistics.outcomes.dropped], [10, 1_000]);
  intake.flush();
  assert.match(
    lines[10] ?? "",
    /WARNING +Suppressed 990 more warnings about dropped QoS 0 messages\.\n$/,
  );
  assert.equal(time.pending, 0);
});

Deno.test("a redelivered message is counted as redelivered, not as received", () => {
  const { intake, inbox, statistics } = createScene(0);
  intake.accept(readingDelivery(1));
  intake.acceptRedelivery();
  assert.deepEqual(
    [statistics.received, statistics.redelivered, statistics.waiting, inbox.length],
    [1, 1, 1, 1],
  );
});

Deno.test("a received message is a DEBUG line with its payload", () => {
  const lines = captureLog();
  createScene(0).intake.accept(readingDelivery(7));
  assert.match(
    withoutTime(lines[0] ?? ""),
    /^DEBUG +Received on 'kraken\/7': \{"timestamp": 17.*"K"}$/,
  );
  assert.equal(lines.length, 1);
});
