/**
 * The demonstration: runs as its own process and counts right; its PGlite server keeps several
 * connections apart.
 */
import { PGlite } from "@electric-sql/pglite";
import assert from "node:assert/strict";
import { connect } from "node:net";
import { fileURLToPath } from "node:url";
import { parseCommandLine, UsageError } from "../../demo/command_line.ts";
import { type PGliteServer, servePGlite } from "../../demo/pglite_server.ts";
import { createSensors, topicOf } from "../../demo/sensors.ts";
import { DatabaseConnection } from "../../lib/database/connection.ts";
import { schemaStatements } from "../../lib/database/schema.ts";
import type { Status } from "../../lib/monitoring/status.ts";
import { waitUntil } from "../support/poll.ts";
import { LOOPBACK } from "../support/ports.ts";
import { type ProgramResult, runProgram, TestProcess } from "../support/process.ts";

const DEMO = fileURLToPath(new URL("../../demo/main.ts", import.meta.url));
const SUMMARY =
  /^(\d+) readings published, (\d+) rows in the database: each is there exactly once/m;

function demoArgs(...args: readonly string[]): string[] {
  return ["run", "--quiet", "--allow-all", DEMO, ...args];
}

async function runDemo(...args: readonly string[]): Promise<ProgramResult> {
  return await runProgram(Deno.execPath(), { args: demoArgs(...args) });
}

function assertAllStored(output: string): void {
  const [, published, rows] = SUMMARY.exec(output) ?? [];
  assert.ok(Number(published) > 0, output);
  assert.equal(rows, published);
}

Deno.test("demo stores everything it publishes, prints plain text into a pipe and ends", async () => {
  const { code, stdout, stderr } = await runDemo("--seconds", "3");
  assertAllStored(stdout);
  assert.equal(code, 0);
  assert.equal(stderr, "");
  assert.ok(!stdout.includes("\x1b"), stdout);
  assert.match(stdout, /^ +\d+ s {2}published \d+ → received \d+ → stored \d+ → rows \d+$/m);
  assert.match(stdout, /^Cryostat temperature +4\.\d{4} K +\d+\.\d s +\d+$/m);
  assert.doesNotMatch(stdout, /WARNING|ERROR/);
});

Deno.test("demo ends cleanly at SIGINT, even one that arrives twice", async () => {
  await using demo = TestProcess.start(Deno.execPath(), { args: demoArgs() });
  await demo.waitForLine(/rows [1-9]/, { timeoutMs: 180_000 });
  demo.kill("SIGINT");
  demo.kill("SIGINT");
  const { code } = await demo.finished();
  assertAllStored(demo.stdoutLines.join("\n"));
  assert.equal(code, 0);
});

Deno.test("demo tells in its first lines where its status page is, and has something to show there", async () => {
  await using demo = TestProcess.start(Deno.execPath(), { args: demoArgs() });
  const line = await demo.waitForLine(/^Status page +http:/, { timeoutMs: 180_000 });
  const address = /http:\S+/.exec(line)?.[0] ?? "";
  assert.ok(
    demo.stdoutLines.slice(0, 6).some((text) => text === line),
    demo.stdoutLines.join("\n"),
  );
  await demo.waitForLine("INFO     Status page at ");
  assert.match(await (await fetch(address)).text(), /<title>Kraken logger/);
  const stored = await waitUntil(async () => {
    const response = await fetch(`${address}api/status`);
    const { sensors } = await response.json() as Status;
    const found = sensors.filter(({ state, label }) => state === "stored" && label !== null);
    return found.length >= 7 ? found : null;
  }, { what: "the sensors with their labels", timeoutMs: 180_000 });
  assert.ok(stored.every(({ unit }) => unit !== ""));
  demo.kill("SIGINT");
  assert.equal((await demo.finished()).code, 0);
});

Deno.test("demo says in words that the user's broker cannot be reached", async () => {
  const { code, stderr } = await runDemo("--broker", `${LOOPBACK}:1`);
  assert.equal(code, 1);
  assert.match(stderr, /^demo: The MQTT broker at '127\.0\.0\.1:1' cannot be used: connection ref/);
  assert.doesNotMatch(stderr, /\n./);
});

Deno.test("demo's command line takes a broker with or without port and refuses nonsense", () => {
  const broker = (text: string): unknown => parseCommandLine(["--broker", text]).broker;
  assert.deepEqual(broker("lab.example:1884"), { host: "lab.example", port: 1884 });
  assert.deepEqual(broker("lab"), { host: "lab", port: 1883 });
  assert.deepEqual(broker("[::1]:1884"), { host: "::1", port: 1884 });
  assert.deepEqual(parseCommandLine(["--seconds", "7"]).seconds, 7);
  for (const text of ["", "a b", "mqtt://lab", "lab:0", "lab:65536", "user@lab", "lab/x"]) {
    assert.throws(() => broker(text), UsageError, text);
  }
  for (const args of [["--seconds", "0"], ["--seconds", "1.5"], ["--brokers", "lab"], ["lab"]]) {
    assert.throws(() => parseCommandLine(args), UsageError, args.join(" "));
  }
});

Deno.test("demo's sensors have topics of their own and finite values that can be shown", () => {
  const sensors = [...createSensors(), ...createSensors()];
  assert.equal(new Set(sensors.map(topicOf)).size, sensors.length);
  for (const { measure, format, label } of sensors) {
    for (let second = 0; second < 1_000; second++) {
      const value = measure(1_700_000_000 + second);
      assert.ok(Number.isFinite(value) && format(value).length <= 12, `${label}: ${value}`);
    }
  }
});

/** A database with one sensor, its server, and what closes both. */
async function withServer(use: (db: PGlite, server: PGliteServer) => Promise<void>): Promise<void> {
  const db = await PGlite.create();
  try {
    for (const statement of schemaStatements({ timescale: false })) await db.exec(statement);
    await db.exec(`INSERT INTO sensors (uuid) VALUES ('${UUID}')`);
    await using server = await servePGlite(db, LOOPBACK);
    await use(db, server);
  } finally {
    await db.close();
  }
}

const UUID = "c4ca4238-a0b9-4382-8dcc-509a6f75849b";

async function open(port: number): Promise<DatabaseConnection> {
  return await DatabaseConnection.open({
    endpoint: { host: LOOPBACK, port },
    user: "postgres",
    password: "-",
    name: "postgres",
    sslMode: "prefer",
    ca: undefined,
    cert: undefined,
    key: undefined,
    connections: 1,
  }, new AbortController().signal);
}

Deno.test("demo's database keeps the statements of several connections apart", async () => {
  await withServer(async (db, server) => {
    const connections = await Promise.all([open(server.port), open(server.port)]);
    let micros = 1_700_000_000_000_000n;
    for (let round = 0; round < 20; round++) {
      const inserts = connections.map((connection, index) => {
        const reading = { uuid: UUID.replaceAll("-", ""), sid: 0, value: index };
        return connection.insert([{ ...reading, timeMicros: ++micros }]);
      });
      const look = server.exclusively(() => db.query("SELECT count(*) FROM sensor_data"));
      const results = await Promise.all(inserts);
      assert.deepEqual(results.map(({ stored }) => stored), [1, 1]);
      await look;
    }
    const { rows } = await db.query("SELECT value, count(*)::int FROM sensor_data GROUP BY value");
    assert.deepEqual(rows.length, 2);
    assert.deepEqual(rows.map((row) => (row as { count: number }).count), [20, 20]);
    for (const connection of connections) await connection.close();
  });
});

Deno.test("demo's database undoes the transaction of a connection that is lost", async () => {
  await withServer(async (db, server) => {
    const [lost, other] = [await open(server.port), await open(server.port)];
    await lost.query("BEGIN");
    await lost.query("DELETE FROM sensors");
    const waits = other.query("SELECT FROM sensors");
    lost.cut();
    assert.equal((await waits).length, 1);
    assert.equal((await server.exclusively(() => db.query("SELECT FROM sensors"))).rows.length, 1);
    await other.close();
    await lost.close();
  });
});

Deno.test("demo's database refuses the encryptions that it does not have", async () => {
  await withServer(async (_db, server) => {
    for (const code of [80877104, 80877103]) {
      const socket = connect(server.port, LOOPBACK);
      const request = new DataView(new ArrayBuffer(8));
      request.setInt32(0, 8);
      request.setInt32(4, code);
      socket.write(new Uint8Array(request.buffer));
      const answer = await new Promise<string>((resolve) =>
        socket.once("data", (bytes) => resolve(bytes.toString()))
      );
      assert.equal(answer, "N");
      socket.destroy();
    }
  });
});
