/**
 * Faults of the network between logger and database under load: connections that are reset,
 * stalled, and cut after a random number of bytes.
 *
 * `KRAKEN_TEST_SEED` repeats the cuts of an earlier run.
 */
import assert from "node:assert/strict";
import { waitUntil } from "../support/poll.ts";
import { startProxy } from "../support/proxy.ts";
import { createRandom, printSeed, readSeed } from "../support/readings.ts";
import { slowInserts, usePostgres } from "../support/harness.ts";
import {
  MORE_THAN_NARROW_HOLDS,
  NARROW,
  SHORT_TIMEOUTS,
  startLoad,
  waitForTimeouts,
} from "./database_load.ts";
import { lacks } from "../support/programs.ts";

const SEED = readSeed();

const postgres = usePostgres();

for (const spool of [true, false]) {
  const variant = spool ? "" : " without a spool";

  Deno.test(`run${variant} keeps every reading when its connections are reset repeatedly`, {
    ignore: lacks("mosquitto"),
  }, async () => {
    const database = await postgres.createDatabase();
    await slowInserts(database, 0.02);
    await using proxy = await startProxy(postgres.server);
    await using load = await startLoad(database, { spool, through: proxy });
    let resets = 0;
    for (let round = 0; round < 15; round++) {
      // Every second reset hits connections that are storing, the others any state.
      if (round % 2 === 0) await load.waitForStored();
      resets += await waitUntil(() => proxy.reset() || null, { intervalMs: 1 });
    }
    assert.ok(resets >= 15);
    await load.finish();
    load.expectOutages(/reset|closed|terminated/);
  });

  Deno.test(`run${variant} stores every reading once when its connections are cut anywhere`, {
    ignore: lacks("mosquitto"),
  }, async (t) => {
    printSeed(t, SEED);
    const random = createRandom(SEED);
    const database = await postgres.createDatabase();
    // Batches of some dozen readings, whose statements have some thousand bytes.
    await slowInserts(database, 0.05);
    await using proxy = await startProxy(postgres.server);
    await using load = await startLoad(database, { spool, through: proxy });
    const logFrom = postgres.server.logLines.length;
    for (let round = 0; round < 6; round++) {
      await load.waitForStored();
      await proxy.cutAfter(Math.floor(random() * 5000), "toServer");
      await load.waitForStored();
      // The answer to an insert follows its commit and has some hundred bytes.
      await proxy.cutAfter(Math.floor(random() * 200), "toClient");
      await load.waitForStored();
      await proxy.cutAfter(0, "toClient");
    }
    const { duplicates } = await load.finish();
    // Committed, and sent again because the answer is missing.
    assert.ok(duplicates > 0, "no cut came between a commit and its answer");
    const incomplete = postgres.server.logLines.slice(logFrom)
      .filter((line) => line.includes("incomplete message from client"));
    assert.ok(incomplete.length > 0, "no cut came in the middle of a statement");
    load.expectOutages(/reset|closed|terminated/);
  });
}

Deno.test("run keeps every reading when the network stalls in either direction", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using proxy = await startProxy(postgres.server);
  await using load = await startLoad(database, { through: proxy });
  for (const direction of ["toServer", "toClient", "both"] as const) {
    await load.waitForStored();
    proxy.pause(direction);
    const carried = direction === "toServer" ? "bytesToServer" : "bytesToClient";
    const before = proxy[carried];
    // More than the load of one second, after which the spool is used.
    await load.waitForPublished(700);
    assert.equal(proxy[carried], before);
    proxy.resume();
  }
  await load.finish();
});

Deno.test(
  "run keeps every reading when answers stall for longer than its timeouts",
  {
    ignore: lacks("mosquitto"),
  },
  async () => {
    const database = await postgres.createDatabase();
    await using proxy = await startProxy(postgres.server);
    await using load = await startLoad(database, {
      ...NARROW,
      through: proxy,
      env: { ...NARROW.env, ...SHORT_TIMEOUTS, APPLICATION_LOG_LEVEL: "DEBUG" },
    });
    proxy.pause("toClient");
    await Promise.all([
      waitForTimeouts(load.logger),
      load.waitForPublished(MORE_THAN_NARROW_HOLDS),
    ]);
    proxy.resume();
    const { duplicates } = await load.finish();
    assert.ok(duplicates > 0, "nothing was committed whose answer stalled");
    load.expectOutages(/timeout|no answer in time/);
  },
);
