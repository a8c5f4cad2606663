/** What systemd is told, by way of a socket of the test's. */
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
      timeoutMs: 180_000,
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
  await manager.waitFor(/^READY=1$/, "the start, although the database is away");
  // Nothing that somebody could clean up while it runs, or that is left behind when it is killed.
  assert.deepEqual([...Deno.readDirSync(temporary.path)], []);
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

for (const hasSpool of [false, true]) {
  const name = `a logger that is stuck, ${hasSpool ? "with a spool" : "without a spool"}`;
  Deno.test(`the watchdog of ${name}, gets nothing any more (patched sources)`, {
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
    // Waits for ever for an insert that the database has committed.
    {
      file: "lib/pipeline/writer.ts",
      find: "outcome = await this.#process(batch, { connection, catalogue });",
      replace: "outcome = await this.#process(batch, { connection, catalogue }); " +
        "await new Promise(() => {});",
    },
    {
      file: "lib/monitoring/health.ts",
      find: "MAX_STANDSTILL_MS = 90_000;",
      replace: "MAX_STANDSTILL_MS = 3_000;",
    },
  ]);
  await using logger = startLogger({
    ...loggerEnv({ database, broker }, hasSpool ? { SPOOL_DIRECTORY: spool.path } : {}),
    ...manager.env(2_000),
  }, { sources: sources.path });
  await logger.waitForLine("Connected to database");
  await waitUntil(() => manager.count("WATCHDOG=1") >= 2, { what: "the watchdog to be fed" });
  // One batch for each connection, and others that nobody takes.
  let count = 0;
  const publish = async (): Promise<void> => {
    await publishReadings(broker, makeReadings({ count: 1, startTimeUs: BigInt(count++) }));
  };
  for (const stored of [1, 2]) {
    await publish();
    await waitForRows(database, stored);
  }
  await publish();
  await manager.waitFor(/^STATUS=Stands still: messages wait, and none/, "the standstill");
  if (hasSpool) await manager.waitFor(/\(\d+ on disk\)$/, "the messages on disk");
  const fed = manager.count("WATCHDOG=1");
  const looks = manager.told.length;
  // What comes meanwhile changes nothing, wherever it goes.
  await waitUntil(async () => {
    await publish();
    return manager.told.length > looks;
  }, { what: "another status, ten seconds later", intervalMs: 500, timeoutMs: 180_000 });
  assert.equal(manager.count("WATCHDOG=1"), fed);
  const [before = 0, after = 0] = manager.told.slice(-2)
    .map((line) => Number(/^STATUS=Stands still: .* for (\d+) s,/.exec(line)?.[1]));
  assert.ok(after >= before + 9, `told after ${after - before} s: ${manager.told.join("\n")}`);
}

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

/** A file that stands for the journal: standard error goes to it, and JOURNAL_STREAM names it. */
class Journal implements Disposable {
  readonly #directory = withTemporaryDirectory();
  readonly #path = `${this.#directory.path}/journal`;

  constructor() {
    Deno.writeTextFileSync(this.#path, "");
  }

  /** The lines that are complete. */
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

Deno.test("in the journal, the lines of the log have their priorities", async () => {
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

Deno.test("in the journal, a configuration that is wrong is an error in each line", async () => {
  using journal = new Journal();
  await using logger = journal.start({ MQTT_QOS: "3", MQTT_HOTS: "lab" });
  assert.equal((await logger.finished()).code, 78);
  assert.equal(journal.lines[0], "<3>The configuration is not usable:");
  assert.ok(journal.lines.includes("<3>MQTT_QOS: must be one of 0, 1, 2, received '3'"));
  assert.match(journal.lines.at(-1) ?? "", /^<3>MQTT_HOTS is not a setting/);
  for (const line of journal.lines) assert.match(line, /^<3>[A-Z]/);

  using other = new Journal();
  await using elsewhere = other.start({ JOURNAL_STREAM: "1:1" });
  assert.equal((await elsewhere.finished()).code, 78);
  assert.equal(other.lines[0], "The configuration is not usable:");
});

function read(path: string): string {
  return Deno.readTextFileSync(new URL(`../../${path}`, import.meta.url));
}

Deno.test("the units and Kubernetes wait for a spool that takes long to be opened", () => {
  for (const unit of ["kraken-logger.service", "kraken-logger@.service"]) {
    assert.match(read(`deploy/systemd/${unit}`), /^TimeoutStartSec=infinity$/m);
  }
  const [, probe = ""] = /startupProbe:\n((?: {12}.*\n)*)/.exec(
    read("deploy/kubernetes/logger.yaml"),
  ) ?? [];
  const number = (name: string): number => Number(new RegExp(`${name}: (\\d+)`).exec(probe)?.[1]);
  assert.equal(number("periodSeconds") * number("failureThreshold"), 1_800);
});

Deno.test("an instance gets the broker's password as the only logger of a host does", () => {
  const settings = (name: string): string =>
    read(`deploy/systemd/${name}`).replaceAll(/^#.*\n/gm, "");
  const plain = settings("mqtt-password.conf");
  assert.equal(
    settings("mqtt-password@.conf"),
    plain.replace("/kraken-logger/mqtt-password", "/kraken-logger/%i.mqtt-password"),
  );
  // Each is installed where only its own unit finds it.
  const readme = read("README.md");
  for (const [name, unit] of [["mqtt-password", "kraken-logger"], ["mqtt-password@", ".*@lab1"]]) {
    const install =
      `deploy/systemd/${name}\\.conf \\\\\n +/etc/systemd/system/${unit}\\.service\\.d/`;
    assert.match(readme, new RegExp(install));
  }
});
