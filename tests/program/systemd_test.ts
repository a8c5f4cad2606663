/** The notifications to systemd, received by a socket of the test. */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import {
  loggerCommand,
  type LoggerEnv,
  loggerEnv,
  startLogger,
} from "../support/logger_process.ts";
import { findFreePort, LOOPBACK } from "../support/ports.ts";
import { waitUntil } from "../support/poll.ts";
import { TestProcess } from "../support/process.ts";
import { publishReadings } from "../support/publisher.ts";
import { makeReadings } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import { breakSources, lacksSources } from "../support/broken_sources.ts";
import { createSession, stopCleanly, usePostgres, waitForRows } from "../support/harness.ts";
import { tune } from "../support/tuning.ts";

const postgres = usePostgres();

/** Receives the notifications of a service. The test disposes it. */
class Manager implements AsyncDisposable {
  readonly received: string[] = [];
  readonly #directory = withTemporaryDirectory();
  readonly #socket = Deno.listenDatagram({
    transport: "unixpacket",
    path: `${this.#directory.path}/notify`,
  });
  readonly #receiving = this.#receive();

  /** Variables of a service with this watchdog timeout. */
  env(watchdogMs: number): LoggerEnv {
    return {
      NOTIFY_SOCKET: `${this.#directory.path}/notify`,
      WATCHDOG_USEC: String(watchdogMs * 1000),
    };
  }

  count(line: string): number {
    return this.received.filter((text) => text === line).length;
  }

  async waitFor(pattern: RegExp, what: string): Promise<void> {
    await waitUntil(() => this.received.some((line) => pattern.test(line)), {
      what,
      timeoutMs: 180_000,
    });
  }

  async #receive(): Promise<void> {
    for await (const [bytes] of this.#socket) {
      this.received.push(...new TextDecoder().decode(bytes).split("\n"));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    await this.#receiving;
    this.#directory[Symbol.dispose]();
  }
}

Deno.test("systemd is notified of the start, of an outage and its end, and of the stop", async () => {
  await using manager = new Manager();
  using spool = withTemporaryDirectory();
  using temporary = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await postgres.server.stop();
  await using logger = startLogger({
    ...loggerEnv({ database, broker }, { SPOOL_DIRECTORY: spool.path }),
    ...manager.env(2_000),
    TMPDIR: temporary.path,
  });
  await manager.waitFor(/^READY=1$/, "the start, although the database is unavailable");
  // No file that could be removed while the logger runs, or is left behind when it is killed.
  assert.deepEqual([...Deno.readDirSync(temporary.path)], []);
  await publishReadings(broker, makeReadings({ count: 3 }));
  await manager.waitFor(/^STATUS=broker connected, database unavailable, 0 stored/, "the outage");
  // The watchdog is fed during the outage: the logger is not stuck.
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
  assert.equal(manager.received[0], "READY=1");
  assert.equal(manager.count("READY=1"), 1);
  assert.deepEqual(manager.received.slice(-2), ["STOPPING=1", "STATUS=Storing in-flight messages"]);
});

for (const hasSpool of [false, true]) {
  const name = hasSpool ? "with a spool" : "without a spool";
  Deno.test(`a stuck logger ${name} stops feeding the watchdog (patched sources)`, {
    ignore: lacksSources(),
  }, () => getStuck(hasSpool));
}

async function getStuck(hasSpool: boolean): Promise<void> {
  await using manager = new Manager();
  using spool = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  using sources = breakSources([
    // Waits forever for an insert that the database has committed.
    {
      file: "lib/pipeline/writer.ts",
      find: "outcome = await this.#process(batch, { connection, columns });",
      replace: "outcome = await this.#process(batch, { connection, columns }); " +
        "await new Promise(() => {});",
    },
  ]);
  await using logger = startLogger({
    ...loggerEnv({ database, broker }, hasSpool ? { SPOOL_DIRECTORY: spool.path } : {}),
    ...manager.env(2_000),
    ...tune({ stuckAfterMs: 3_000 }),
  }, { sources: sources.path });
  await logger.waitForLine("Connected to database");
  await waitUntil(() => manager.count("WATCHDOG=1") >= 2, { what: "the watchdog to be fed" });
  // One batch for each connection, and more that no connection is free for.
  let count = 0;
  const publish = async (): Promise<void> => {
    await publishReadings(broker, makeReadings({ count: 1, startTimeUs: BigInt(count++) }));
  };
  for (const stored of [1, 2]) {
    await publish();
    await waitForRows(database, stored);
  }
  await publish();
  await manager.waitFor(/^STATUS=Stuck: messages are waiting, but no insert/, "the stuck logger");
  if (hasSpool) await manager.waitFor(/\(\d+ on disk\)$/, "the messages on disk");
  const fed = manager.count("WATCHDOG=1");
  const seen = manager.received.length;
  // New messages change nothing, in memory or on disk.
  await waitUntil(async () => {
    await publish();
    return manager.received.length > seen;
  }, { what: "another status, ten seconds later", intervalMs: 500, timeoutMs: 180_000 });
  assert.equal(manager.count("WATCHDOG=1"), fed);
  const [before = 0, after = 0] = manager.received.slice(-2)
    .map((line) => Number(/^STATUS=Stuck: .* for (\d+) s,/.exec(line)?.[1]));
  assert.ok(
    after >= before + 9,
    `notified after ${after - before} s: ${manager.received.join("\n")}`,
  );
}

Deno.test("a missing socket of systemd does not affect the logger", async () => {
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

/** A file in place of the journal: standard error goes to it, and JOURNAL_STREAM names it. */
class Journal implements Disposable {
  readonly #directory = withTemporaryDirectory();
  readonly #path = `${this.#directory.path}/journal`;

  constructor() {
    Deno.writeTextFileSync(this.#path, "");
  }

  /** The complete lines. */
  get lines(): readonly string[] {
    return Deno.readTextFileSync(this.#path).split("\n").slice(0, -1);
  }

  start(env: LoggerEnv = {}): TestProcess {
    const { dev, ino } = Deno.statSync(this.#path);
    const command = loggerCommand([], { JOURNAL_STREAM: `${dev}:${ino}`, ...env });
    return TestProcess.start("/bin/sh", {
      args: ["-c", 'exec "$@" 2>>"$0"', this.#path, command.program, ...command.args],
      cwd: this.#directory.path,
      env: command.env,
      clearEnv: true,
    });
  }

  [Symbol.dispose](): void {
    this.#directory[Symbol.dispose]();
  }
}

Deno.test("in the journal, each line of the log has its priority", async () => {
  using journal = new Journal();
  const nobody = { host: LOOPBACK, port: findFreePort() };
  const database = { logger: { ...nobody, user: "u", password: "p", database: "d" } };
  await using logger = journal.start(loggerEnv({ database, broker: nobody }));
  await waitUntil(() => journal.lines.some((line) => /^<3>ERROR +Database/.test(line)), {
    what: "the outage of the database",
  });
  logger.kill();
  assert.equal((await logger.finished()).code, 0);
  assert.match(journal.lines.at(-1) ?? "", /^<6>INFO +Stopped: /);
  for (const line of journal.lines) assert.match(line, /^<[346]>(ERROR|WARNING|INFO) /);
});

Deno.test("in the journal, each line about an invalid configuration is an error", async () => {
  using journal = new Journal();
  await using logger = journal.start({ MQTT_QOS: "3", MQTT_HOTS: "lab" });
  assert.equal((await logger.finished()).code, 78);
  assert.equal(journal.lines[0], "<3>The configuration is invalid:");
  assert.ok(journal.lines.includes("<3>MQTT_QOS: must be one of 0, 1, 2, received '3'"));
  assert.match(journal.lines.at(-1) ?? "", /^<3>MQTT_HOTS is not a setting/);
  for (const line of journal.lines) assert.match(line, /^<3>[A-Z]/);

  using other = new Journal();
  await using elsewhere = other.start({ JOURNAL_STREAM: "1:1" });
  assert.equal((await elsewhere.finished()).code, 78);
  assert.equal(other.lines[0], "The configuration is invalid:");
});

function read(path: string): string {
  return Deno.readTextFileSync(new URL(`../../${path}`, import.meta.url));
}

Deno.test("the units and Kubernetes wait for a spool that takes long to open", () => {
  for (const unit of ["kraken-logger.service", "kraken-logger@.service"]) {
    assert.match(read(`deploy/systemd/${unit}`), /^TimeoutStartSec=infinity$/m);
  }
  const [, probe = ""] = /startupProbe:\n((?: {12}.*\n)*)/.exec(
    read("deploy/kubernetes/logger.yaml"),
  ) ?? [];
  const number = (name: string): number => Number(new RegExp(`${name}: (\\d+)`).exec(probe)?.[1]);
  assert.equal(number("periodSeconds") * number("failureThreshold"), 1_800);
});

Deno.test("an instance gets the password of the broker as a single logger does", () => {
  const settings = (name: string): string =>
    read(`deploy/systemd/${name}`).replaceAll(/^#.*\n/gm, "");
  const plain = settings("mqtt-password.conf");
  assert.equal(
    settings("mqtt-password@.conf"),
    plain.replace("/kraken-logger/mqtt-password", "/kraken-logger/%i.mqtt-password"),
  );
  // Each is installed where only its own unit finds it.
  const page = read("docs/systemd.md");
  for (const [name, unit] of [["mqtt-password", "kraken-logger"], ["mqtt-password@", ".*@lab1"]]) {
    const install =
      `deploy/systemd/${name}\\.conf \\\\\n +/etc/systemd/system/${unit}\\.service\\.d/`;
    assert.match(page, new RegExp(install));
  }
});
