/** Several loggers that share the messages: each reading is stored once, even if one is killed. */
import assert from "node:assert/strict";
import { loggerEnv, type LoggerProcess, startLogger } from "../support/logger_process.ts";
import { readDocument } from "../support/documents.ts";
import { waitUntil } from "../support/poll.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
import { runSuccessfully } from "../support/process.ts";
import { lacks, requireProgram } from "../support/programs.ts";
import { publishReadings } from "../support/publisher.ts";
import { compareStored, expectStored, makeReadings, type Reading } from "../support/readings.ts";
import type { MosquittoBroker } from "../support/mosquitto.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  slowInserts,
  startTellingMosquitto,
  stopCleanly,
  usePostgres,
  waitForRows,
  waitForSubscription,
} from "../support/harness.ts";

const postgres = usePostgres();
const GROUP = "$share/lab/sensors/#";

interface Scene {
  readonly database: TestDatabase;
  readonly broker: MosquittoBroker;
  readonly spool: string;
}

/** Starts a logger with a separate name and spool, by default as a member of the group. */
async function startMember(
  { database, broker, spool }: Scene,
  number: number,
  { times = 1, group = "lab" }: { readonly times?: number; readonly group?: string } = {},
): Promise<LoggerProcess> {
  const clientId = nameOf(number);
  const logger = startLogger(loggerEnv({ database, broker }, {
    MQTT_CLIENT_ID: clientId,
    MQTT_SHARED_GROUP: group,
    SPOOL_DIRECTORY: `${spool}/${number}`,
  }));
  const filter = group === "" ? "sensors/#" : GROUP;
  await waitForSubscription(broker, { clientId, filter, times });
  await logger.waitForLine("Connected to database");
  return logger;
}

function nameOf(number: number): string {
  return `replica-${number}`;
}

for (const count of [2, 4]) {
  Deno.test(`${count} loggers share the messages, and nothing is lost when one of them is killed`, {
    ignore: lacks("mosquitto"),
  }, async () => {
    using spool = withTemporaryDirectory();
    const database = await postgres.createDatabase();
    // So that messages are in flight when the logger is killed.
    await slowInserts(database, 0.05);
    await using broker = await startTellingMosquitto({ maxInflightMessages: 100 });
    const scene = { database, broker, spool: spool.path };
    await using stack = new AsyncDisposableStack();
    const members: LoggerProcess[] = [];
    for (let number = 0; number < count; number++) {
      members.push(stack.use(await startMember(scene, number)));
    }
    const readings = makeReadings({ count: 4_000 });
    const publishing = publishReadings(broker, readings, { rate: 1_000 });
    try {
      await waitForRows(database, 500);
      const [victim] = members;
      assert.ok(victim);
      await victim.kill();
      assert.ok(await database.countReadings() < readings.length, "it was killed too late");
    } finally {
      await publishing;
    }
    // Messages that the broker has assigned to the killed logger wait for that logger.
    await waitForSettled(database);
    const without = await database.countReadings();
    members[0] = stack.use(await startMember(scene, 0, { times: 2 }));
    await waitForRows(database, readings.length);
    assert.ok(without < readings.length, "no message waited for the killed logger");
    await expectStored(database, readings);
    const counts = [];
    for (const member of members) counts.push(await stopCleanly(member));
    // Each logger has received a part of the messages.
    for (const { stored } of counts) assert.ok(stored > 0);
    assert.ok(counts.reduce((sum, { stored }) => sum + stored, 0) <= readings.length);
  });
}

/** Waits until no row was added for a second. */
async function waitForSettled(database: TestDatabase): Promise<void> {
  let rows = -1;
  let sinceMs = performance.now();
  await waitUntil(async () => {
    const now = await database.countReadings();
    if (now !== rows) sinceMs = performance.now();
    rows = now;
    return performance.now() - sinceMs > 1_000;
  }, { what: "the end of new rows" });
}

Deno.test("messages assigned to a stopped member of the group wait for it", {
  ignore: lacks("mosquitto"),
}, async () => {
  using spool = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto({ maxInflightMessages: 100 });
  const scene = { database, broker, spool: spool.path };
  await using first = await startMember(scene, 0);
  await using second = await startMember(scene, 1);
  const readings: Reading[] = makeReadings({ count: 600 });
  await publishReadings(broker, readings.slice(0, 300));
  await waitForRows(database, 300);
  const { stored } = await stopCleanly(first);
  assert.ok(stored > 0);
  await publishReadings(broker, readings.slice(300));
  await waitForSettled(database);
  const taken = await database.countReadings() - 300;
  // Mosquitto 2.0 continues to assign messages to a member whose session it keeps.
  await using again = await startMember(scene, 0, { times: 2 });
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  assert.ok(taken > 0 && taken < 300, `${taken} of 300 went to the member that was there`);
  await stopCleanly(again);
  await stopCleanly(second);
});

/** Ends the session of a client as docs/scaling.md describes it. */
async function endSession(broker: MosquittoBroker, clientId: string): Promise<void> {
  const [, line = ""] =
    /^ *mosquitto_sub (.*-h BROKER .*)$/m.exec(readDocument("docs/scaling.md")) ?? [];
  const words = line.replace("BROKER", broker.host).replace("CLIENT_ID", clientId).split(" ");
  assert.ok(words.includes(clientId), "docs/scaling.md does not describe how to end a session");
  await runSuccessfully(requireProgram("mosquitto_sub"), {
    args: [...words, "-p", String(broker.port)],
  });
}

/**
 * Removes the first member of the group during publishing, in the steps of docs/scaling.md, or without
 * the step that prevents loss. Compares the table with the published readings.
 */
async function removeMember(
  members: number,
  { withStep }: { readonly withStep: boolean },
): Promise<Awaited<ReturnType<typeof compareStored>>> {
  using spool = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto({ maxInflightMessages: 100 });
  const scene = { database, broker, spool: spool.path };
  await using stack = new AsyncDisposableStack();
  const loggers: LoggerProcess[] = [];
  for (let number = 0; number < members; number++) {
    loggers.push(stack.use(await startMember(scene, number)));
  }
  const readings = makeReadings({ count: 60_000 });
  const enough = new AbortController();
  const publishing = publishReadings(broker, readings, { rate: 500, signal: enough.signal });
  const waitForMore = async (): Promise<void> => {
    await waitForRows(database, await database.countReadings() + 200);
  };
  let published;
  try {
    await waitForMore();
    if (withStep) {
      await stopCleanly(loggers[1] ?? assert.fail());
      loggers[1] = stack.use(await startMember(scene, 1, { group: "" }));
      await waitForMore();
    }
    const leaving = await stopCleanly(loggers.shift() ?? assert.fail());
    assert.ok(leaving.stored > 0);
    assert.equal(leaving.spooled, 0);
    // The broker continues to assign messages to it.
    await waitForMore();
    await endSession(broker, nameOf(0));
    await waitForMore();
    if (withStep && members > 2) {
      await stopCleanly(loggers.shift() ?? assert.fail());
      loggers.unshift(stack.use(await startMember(scene, 1, { times: 2 })));
      await waitForMore();
    }
  } finally {
    enough.abort();
    published = await publishing;
  }
  assert.ok(published < readings.length, "the readings were published before the end of the steps");
  await waitForSettled(database);
  for (const logger of loggers) await stopCleanly(logger);
  return await compareStored(database, readings.slice(0, published));
}

for (const members of [2, 3]) {
  Deno.test(
    `one of ${members} loggers is removed as docs/scaling.md describes it, and nothing is lost`,
    {
      ignore: lacks("mosquitto", "mosquitto_sub"),
    },
    async () => {
      const { total, missing } = await removeMember(members, { withStep: true });
      assert.equal(total, 0, missing.slice(0, 5).join("\n"));
    },
  );
}

Deno.test("ending a session without that step loses the messages assigned to it", {
  ignore: lacks("mosquitto", "mosquitto_sub"),
}, async () => {
  const { missing, extra, changed } = await removeMember(2, { withStep: false });
  assert.ok(missing.length > 50, `${missing.length} are missing`);
  assert.deepEqual([extra, changed], [[], []]);
});
