/** The headline of the status page. */
import assert from "node:assert/strict";
import type { Status } from "../../../lib/monitoring/status.ts";
import { value, verdict } from "../../../lib/http/status_page/words.js";
import { makeStatus } from "../../fakes/fake_monitor.ts";

const NONE = { stale: 0, unknown: 0 };

function withCounts(counts: Partial<Status["counts"]>, changes: Partial<Status> = {}): Status {
  const status = makeStatus(changes);
  return { ...status, counts: { ...status.counts, ...counts } };
}

Deno.test("the headline is good only if nothing is lost, late or unknown", () => {
  const cases: [Status, typeof NONE, string][] = [
    [withCounts({ rejected: 1 }), NONE, "1 message was rejected"],
    [withCounts({ dropped: 1234 }), NONE, "1,234 messages were dropped"],
    [
      withCounts({ waiting: 2 }, { oldestWaitingMs: 7_000 }),
      NONE,
      "2 messages are waiting, the oldest for 7.0 s",
    ],
    [
      withCounts({ spooled: 9, waiting: 2 }, { oldestWaitingMs: 100 }),
      NONE,
      "11 messages are waiting, the oldest for 0.1 s",
    ],
    [makeStatus(), { stale: 1, unknown: 2 }, "2 sensors are not registered, 1 sensor is stale"],
    [
      withCounts({ rejected: 2, dropped: 1 }),
      { stale: 3, unknown: 0 },
      "2 messages were rejected, 1 message was dropped, 3 sensors are stale",
    ],
  ];
  for (const [status, sensors, words] of cases) {
    const { level, text } = verdict(status, sensors);
    const sentence = text.replaceAll("\u00a0", " ");
    assert.deepEqual([level, sentence], ["warn", `Both connections work, but ${words}.`]);
  }
  const good = ["good", "Both connections work, no message is waiting."];
  for (
    const status of [
      makeStatus(),
      // Messages in flight do not count.
      withCounts({ waiting: 60, stored: 5, duplicate: 7 }, { oldestWaitingMs: 300 }),
    ]
  ) {
    const { level, text } = verdict(status, NONE);
    assert.deepEqual([level, text], good);
  }
});

Deno.test("the text for screen readers changes only with the state", () => {
  const away = { connected: false, text: "connection refused", sinceMs: 0, reconnects: 0 };
  const news = [1_000, 60_000, 7e6].map((nowMs) =>
    verdict(withCounts({ spooled: nowMs }, { nowMs, database: away }), NONE).news
  );
  assert.deepEqual([...new Set(news)], ["The database is unavailable."]);
  const behind = [1, 500, 20_000].map((spooled) =>
    verdict(withCounts({ spooled }, { oldestWaitingMs: spooled }), { stale: spooled, unknown: 0 })
      .news
  );
  assert.deepEqual([...new Set(behind)], [
    "Both connections work, but messages are waiting, sensors are stale.",
  ]);
});

Deno.test("values are short, and integers complete", () => {
  const cases = {
    "21.524612345": "21.52461",
    "12345678": "12345678",
    "123456789012": "123456789012",
    "12345678901234567890": "1.234568e+19",
    "-0.0000000000123456789": "-1.234568e-11",
    "0.1": "0.1",
    "NaN": "NaN",
    "": "",
  };
  for (const [text, short] of Object.entries(cases)) assert.equal(value(text), short);
});
