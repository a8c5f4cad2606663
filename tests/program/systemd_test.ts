/** What systemd is told, by way of a socket of the test's. */
import assert from "node:assert/strict";
import { startBroker } from "../services/broker.ts";
import { type LoggerEnv, loggerEnv, startLogger } from "../services/logger_process.ts";
import { waitUntil } from "../services/poll.ts";
import { publishReadings } from "../services/publisher.ts";
import { makeReadings } from "../services/readings.ts";
import { withTemporaryDirectory } from "../services/temporary_directory.ts";
import { breakSources, withoutSources } from "./broken_sources.ts";
import { createSession, stopCleanly, usePostgres, waitForRows } from "./harness.ts";

const postgres = usePostgres();

/** Receives what a service tells. The test disposes it. */
class Manager implements AsyncDisposable {
  readonly told: string[] = [];
  readonly #directory = withTemporaryDirectory();
  readonly #socket = Deno.listenDatagram({
    transport: "unixpacket",
    path: `${this.#directory.path}/notify`,
  });
  readonly #receiving = this.#receive();

  /** Variables of a service that is watched with such a time. */
  env(watchdogMs: number): LoggerEnv {
    return {
      NOTIFY_SOCKET: `${this.#directory.path}/notify`,
      WATCHDOG_USEC: String(watchdogMs * 1000),
    };
  }

  count(line: string): number {
    return this.told.filter((text) => text === line).length;
  }

  async waitFor(pattern: RegExp, what: string): Promise<void> {
    await waitUntil(() => this.told.some((line) => pattern.test(line)), {
      what,
      timeoutMs: 30_000,
    });
  }

  async #receive(): Promise<void> {
    for await (const [bytes] of this.#socket) {
      this.told.push(...new TextDecoder().decode(bytes).split("\n"));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    await this.#receiving;
    this.#directory[Symbol.dispose]();
  }
}

Deno.test("systemd is told of the start, of what fails and is back, and of the end", async () => {
  await using manager = new Manager();
  using spool = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await postgres.server.stop();
  await using logger = startLogger({
    ...loggerEnv({ database, broker }, { SPOOL_DIRECTORY: spool.path }),
    ...manager.env(2_000),
  });
  await manager.waitFor(/^READY=1$/, "the start, although the database is away");
  await publishReadings(broker, makeReadings({ count: 3 }));
  await manager.waitFor(/^STATUS=broker connected, database away, 0 stored/, "the outage");
  // The dog is fed all the while: nothing stands still.
  const fed = manager.count("WATCHDOG=1");
  await waitUntil(() => manager.count("WATCHDOG=1") >= fed + 3, { what: "the watchdog to be fed" });
  await postgres.server.start();
  await manager.waitFor(
    /^STATUS=broker connected, database connected, \d stored, /,
    "the end of it",
  );
  await waitForRows(database, 3);
  await stopCleanly(logger);
  await manager.waitFor(/^STOPPING=1$/, "the end");
  assert.equal(manager.told[0], "READY=1");
  assert.equal(manager.count("READY=1"), 1);
  assert.deepEqual(manager.told.slice(-2), ["STOPPING=1", "STATUS=Finishing what is in hand"]);
});

Deno.test("the watchdog of a logger that is stuck gets nothing any more", {
  ignore: withoutSources,
}, async () => {
  await using manager = new Manager();
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  using sources = breakSources([
    // Waits for ever for an insert that the database has committed.
    {
      file: "lib/writer.ts",
      find: "isStored = await this.#process(batch, { connection, catalogue });",
      replace:
        "await this.#process(batch, { connection, catalogue }); await new Promise(() => {});",
    },
    { file: "lib/writer.ts", find: "let isStored;", replace: "const isStored = true;" },
    {
      file: "lib/health.ts",
      find: "MAX_STANDSTILL_MS = 90_000;",
      replace: "MAX_STANDSTILL_MS = 3_000;",
    },
  ]);
  await using logger = startLogger({
    ...loggerEnv({ database, broker }),
    ...manager.env(2_000),
  }, { sources: sources.path });
  await logger.waitForLine("Connected to database");
  await waitUntil(() => manager.count("WATCHDOG=1") >= 2, { what: "the watchdog to be fed" });
  // One batch for each connection, and another one that nobody takes.
  for (let batch = 0; batch < 3; batch++) {
    await publishReadings(broker, makeReadings({ count: 1, startTimeUs: BigInt(batch) }));
  }
  await manager.waitFor(/^STATUS=Stands still: messages wait, and none/, "the standstill");
  const fed = manager.count("WATCHDOG=1");
  const looks = manager.told.length;
  await waitUntil(() => manager.told.length > looks, {
    what: "another status, ten seconds later",
    timeoutMs: 30_000,
  });
  assert.equal(manager.count("WATCHDOG=1"), fed);
});

Deno.test("a socket of systemd that is not there does not disturb the logger", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(loggerEnv({ database, broker }, {
    NOTIFY_SOCKET: "/nowhere/notify",
    WATCHDOG_USEC: "100000",
  }));
  await publishReadings(broker, makeReadings({ count: 5 }));
  await waitForRows(database, 5);
  await stopCleanly(logger);
});
