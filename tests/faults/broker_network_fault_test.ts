/**
 * Faults of the network between broker and logger: silently cut in either direction for longer than
 * the keepalive, and reset repeatedly in the middle of a backlog.
 *
 * `KRAKEN_TEST_SEED` repeats the resets of an earlier run.
 */
import assert from "node:assert/strict";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { waitUntil } from "../support/poll.ts";
import { startProxy } from "../support/proxy.ts";
import { publishReadingsFast } from "../support/publisher_process.ts";
import {
  createRandom,
  expectStored,
  makeReadings,
  printSeed,
  readSeed,
} from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  createSession,
  expectNothingLeft,
  startTellingMosquitto,
  stopWhenDrained,
  usePostgres,
} from "../support/harness.ts";
import {
  expectOutages,
  outagesOf,
  SHORT_TIMEOUTS,
  startLoad,
  waitForOutageEnds,
} from "./broker_load.ts";
import { lacks } from "../support/programs.ts";

const SEED = readSeed();

const postgres = usePostgres();

Deno.test(
  "run keeps every reading when either direction is cut for longer than the keepalive",
  {
    ignore: lacks("mosquitto"),
  },
  async () => {
    const database = await postgres.createDatabase();
    await using load = await startLoad(database, {
      proxied: true,
      // With MQTT 5, the broker may send for a long time without receiving answers.
      env: { ...SHORT_TIMEOUTS, MQTT_PROTOCOL_VERSION: "4" },
    });
    const { proxy } = load;
    const directions = ["toServer", "toClient", "both"] as const;
    for (const direction of directions) {
      await load.waitForStored(50);
      const carried = (): number[] => [
        direction === "toClient" ? 0 : proxy.bytesToServer,
        direction === "toServer" ? 0 : proxy.bytesToClient,
      ];
      let before: number[] = [];
      await load.outage(() => {
        proxy.pause(direction);
        before = carried();
      });
      assert.deepEqual(carried(), before);
      await load.recovery(() => proxy.resume());
    }
    await load.waitForStored(50);
    await load.finish();
    // Without packets from the logger, the keepalive of the broker may expire first.
    expectOutages(load.logger, directions.length, /no longer answers|closed the connection/);
    assert.match(outagesOf(load.logger).slice(1).join(), /^(.*no longer answers,?){2}$/);
  },
);

Deno.test("run keeps every reading when its connection is reset repeatedly during a backlog", {
  ignore: lacks("mosquitto"),
}, async (t) => {
  printSeed(t, SEED);
  const random = createRandom(SEED);
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto({ maxInflightMessages: 500 });
  await createSession(broker);
  const readings = makeReadings({ count: 5000 });
  await Promise.all([
    publishReadingsFast(broker, readings.slice(0, 2500), { qos: 1 }),
    publishReadingsFast(broker, readings.slice(2500), { qos: 2 }),
  ]);
  await using proxy = await startProxy(broker);
  const cuts = ["toClient", "toServer", "toClient", "toServer"] as const;
  // A message has about 200 bytes and its acknowledgement 4 or 8: all connections together pass at
  // most 3,000 messages.
  const cut = (direction: (typeof cuts)[number]): Promise<void> => {
    const most = direction === "toClient" ? 100_000 : 4_000;
    return proxy.cutAfter(Math.floor(random() * most), direction);
  };
  let next = cut(cuts[0]);
  await using logger = startLogger(loggerEnv({ database, broker: proxy }, {
    SPOOL_DIRECTORY: directory.path,
  }));
  for (const direction of cuts.slice(1)) {
    await next;
    next = cut(direction);
  }
  await next;
  const carried = proxy.bytesToClient;
  await waitUntil(() => proxy.acceptedConnections > cuts.length, {
    what: "the connection after the last cut",
  });
  await waitForOutageEnds(logger);
  const counts = await stopWhenDrained(logger, broker);
  assert.ok(proxy.bytesToClient - carried > 150_000, "the last message came after the backlog");
  await expectStored(database, readings);
  assert.deepEqual([counts.stored, counts.unknown], [readings.length, 1]);
  assert.equal(proxy.acceptedConnections, cuts.length + 1);
  // Connections that end immediately are not logged.
  const outages = outagesOf(logger).length;
  assert.ok(outages >= 1 && outages <= cuts.length, `${outages} outages`);
  await using again = startLogger(loggerEnv({ database, broker }));
  await expectNothingLeft(again, broker);
});
