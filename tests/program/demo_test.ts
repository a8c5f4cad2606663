/**
 * The demo as a process: it stores all that it publishes, adapts to the terminal, ends cleanly, and
 * explains problems with a broker. Its PGlite server keeps connections apart.
 */
import { PGlite } from "@electric-sql/pglite";
import assert from "node:assert/strict";
import { connect, createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { parseCommandLine, UsageError } from "../../demo/command_line.ts";
import { type PGliteServer, servePGlite } from "../../demo/pglite_server.ts";
import { createSensors, topicOf } from "../../demo/sensors.ts";
import { DEFAULT_TUNING } from "../../lib/config/tuning.ts";
import { DatabaseConnection } from "../../lib/database/connection.ts";
import { schemaStatements } from "../../lib/database/schema.ts";
import type { Status } from "../../lib/monitoring/status.ts";
import { FakeTerminal } from "../fakes/fake_terminal.ts";
import { startAedes } from "../support/aedes_broker.ts";
import { listen } from "../../demo/listen.ts";
import { waitUntil } from "../support/poll.ts";
import { LOOPBACK } from "../support/ports.ts";
import { type ProgramResult, runProgram, TestProcess } from "../support/process.ts";
import { lacks, requireProgram } from "../support/programs.ts";

const DEMO = fileURLToPath(new URL("../../demo/main.ts", import.meta.url));
const SUMMARY =
  /^(\d+) readings published, (\d+) rows in the database: each is stored exactly once/m;

function demoArgs(...args: readonly string[]): string[] {
  return ["run", "--quiet", "--allow-all", DEMO, ...args];
}

async function runDemo(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<ProgramResult> {
  return await runProgram(Deno.execPath(), { args: demoArgs(...args), env });
}

function assertAllStored(output: string): void {
  const [, published, rows] = SUMMARY.exec(output) ?? [];
  assert.ok(Number(published) > 0, output);
  assert.equal(rows, published);
}

Deno.test("demo stores all that it publishes and prints plain text into a pipe, even twice at once", async () => {
  const runs = await Promise.all([runDemo(["--seconds", "3"]), runDemo(["--seconds", "3"])]);
  for (const { code, stdout, stderr } of runs) {
    assertAllStored(stdout);
    assert.equal(code, 0);
    assert.equal(stderr, "");
    assert.ok(!stdout.includes("\x1b"), stdout);
    assert.match(stdout, /^ +\d+ s {2}published \d+ → received \d+ → stored \d+ → rows \d+$/m);
    assert.match(stdout, /^Cryostat temperature +4\.\d{4} K +\d+\.\d s +\d+$/m);
    assert.doesNotMatch(stdout, /WARNING|ERROR/);
  }
});

Deno.test("demo prints its addresses first, its status page works, and SIGINT ends it, even when it arrives twice", async () => {
  await using demo = TestProcess.start(Deno.execPath(), { args: demoArgs() });
  const line = await demo.waitForLine(/^Status page +http:/, { timeoutMs: 180_000 });
  const address = /http:\S+/.exec(line)?.[0] ?? "";
  const ports = [...demo.stdoutLines.join("\n").matchAll(/127\.0\.0\.1:(\d+)/g)]
    .map(([, port]) => Number(port));
  assert.ok(demo.stdoutLines.slice(0, 6).includes(line), demo.stdoutLines.join("\n"));
  await demo.waitForLine("INFO     Serving the status page at ", { timeoutMs: 60_000 });
  assert.match(await (await fetch(address)).text(), /<title>Kraken logger/);
  const stored = await waitUntil(async () => {
    const response = await fetch(`${address}api/status`);
    const { sensors } = await response.json() as Status;
    const found = sensors.filter(({ state, label }) => state === "stored" && label !== null);
    return found.length >= 7 ? found : null;
  }, { what: "the sensors with their labels", timeoutMs: 180_000 });
  assert.ok(stored.every(({ unit }) => unit !== ""));
  demo.kill("SIGINT");
  demo.kill("SIGINT");
  const { code } = await demo.finished();
  assertAllStored(demo.stdoutLines.join("\n"));
  assert.equal(code, 0);
  for (const port of ports) {
    await assert.rejects(Deno.connect({ hostname: LOOPBACK, port }), Deno.errors.ConnectionRefused);
  }
});

Deno.test("demo ends at SIGINT while it starts", async () => {
  await using demo = TestProcess.start(Deno.execPath(), { args: demoArgs() });
  await demo.waitForLine("Starting broker, database, node and logger", { timeoutMs: 60_000 });
  demo.kill("SIGINT");
  const { code } = await demo.finished();
  assert.equal(demo.stdoutLines.at(-1), "Ended before the first reading.");
  assert.equal(code, 0);
});

/** Runs the demo for some seconds on a terminal and returns all that it has written. */
async function runOnTerminal(
  { columns, rows }: { readonly columns: number; readonly rows: number },
  env: Readonly<Record<string, string>>,
): Promise<ProgramResult> {
  const demo = [Deno.execPath(), ...demoArgs("--seconds", "4")].join(" ");
  const command = `stty cols ${columns} rows ${rows} && exec ${demo}`;
  const args = ["--quiet", "--return", "--flush", "--command", command, "/dev/null"];
  return await runProgram(requireProgram("script"), { args, env });
}

const CLOSE = "\x1b[?1049l";

Deno.test({
  name: "demo shows all sensors on a terminal of 40 by 24, and restores it at the end",
  ignore: lacks("script"),
}, async () => {
  const size = { columns: 40, rows: 24 };
  const { code, stdout } = await runOnTerminal(size, { TERM: "xterm" });
  assert.equal(code, 0, stdout);
  const terminal = new FakeTerminal(size);
  const end = stdout.indexOf(CLOSE);
  terminal.write(stdout.slice(0, end));
  assert.ok(terminal.isAlternate, stdout);
  const screen = terminal.lines.join("\n");
  for (const { label } of createSensors()) {
    assert.ok(screen.includes(`\n${label.slice(0, 15)}`), `${label}:\n${screen}`);
  }
  assert.match(screen, /^Status page {2}http:/m);
  terminal.write(stdout.slice(end));
  assert.ok(!terminal.isAlternate);
  assert.match(stdout.slice(end), /readings published.*exactly\s+once\.\r\n$/s);
  assert.ok(!stdout.slice(end + CLOSE.length).includes("\x1b"));
});

Deno.test({
  name: "demo writes lines without control sequences to a dumb terminal, and none is too wide",
  ignore: lacks("script"),
}, async () => {
  const { code, stdout } = await runOnTerminal({ columns: 40, rows: 24 }, { TERM: "dumb" });
  assert.equal(code, 0, stdout);
  assert.ok(!stdout.includes("\x1b"), stdout);
  assert.match(stdout, /^ +\d+ s {2}published \d+ → received \d+ →\r\n/m);
  const end = stdout.slice(stdout.indexOf("Ending:")).split("\r\n");
  assert.ok(end.length > 10, stdout);
  for (const line of end) assert.ok(line.length <= 40, line);
});

Deno.test("demo explains what to do if no broker listens", async () => {
  const { code, stderr } = await runDemo(["--broker", `${LOOPBACK}:1`]);
  assert.equal(code, 1);
  assert.match(stderr, /^demo: Using the MQTT broker '127\.0\.0\.1:1': connection refused/);
  assert.match(stderr, /\. Check host and port\. Without --broker, the demo starts a broker\.\n$/);
  assert.doesNotMatch(stderr, /\n./);
});

Deno.test("demo explains what to do if the port is not one of MQTT", async () => {
  const server = createServer((socket) => socket.resume().end("HTTP/1.1 400 Bad Request\r\n\r\n"));
  const port = await listen(server, LOOPBACK);
  const { code, stderr } = await runDemo(["--broker", `${LOOPBACK}:${port}`]);
  await new Promise((resolve) => server.close(resolve));
  assert.equal(code, 1);
  assert.match(
    stderr,
    /: no answer in MQTT\. Give the port for MQTT without TLS, usually 1883\.\n$/,
  );
});

Deno.test("demo logs in to the user's broker, and names the variables if the broker refuses it", async () => {
  await using broker = await startAedes({ users: { demo: "right" } });
  const args = ["--broker", `${broker.host}:${broker.port}`, "--seconds", "2"];
  const login = (password: string): Record<string, string> => ({
    MQTT_CLIENT_USER: "demo",
    MQTT_CLIENT_PASSWORD: password,
  });
  const [refused, accepted] = await Promise.all([
    runDemo(args, login("wrong")),
    runDemo(args, login("right")),
  ]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /\. Set MQTT_CLIENT_USER and MQTT_CLIENT_PASSWORD to a login of/);
  assert.doesNotMatch(refused.stderr, /\n./);
  assertAllStored(accepted.stdout);
  assert.equal(accepted.code, 0);
  assert.doesNotMatch(accepted.stdout, /stays at the broker/);
});

Deno.test("demo's command line accepts a broker with or without port, and rejects invalid ones", () => {
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

Deno.test("demo's sensors have distinct topics and finite values that fit into the table", () => {
  const sensors = [...createSensors(), ...createSensors()];
  assert.equal(new Set(sensors.map(topicOf)).size, sensors.length);
  for (const { measure, format, label } of sensors) {
    for (let second = 0; second < 1_000; second++) {
      const value = measure(1_700_000_000 + second);
      assert.ok(Number.isFinite(value) && format(value).length <= 12, `${label}: ${value}`);
    }
  }
});

/** Starts a database with one sensor and its server, and closes both afterwards. */
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
    tuning: DEFAULT_TUNING,
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
      const count = server.exclusively(() => db.query("SELECT count(*) FROM sensor_data"));
      const results = await Promise.all(inserts);
      assert.deepEqual(results.map(({ stored }) => stored), [1, 1]);
      await count;
    }
    const { rows } = await db.query("SELECT value, count(*)::int FROM sensor_data GROUP BY value");
    assert.deepEqual(rows.length, 2);
    assert.deepEqual(rows.map((row) => (row as { count: number }).count), [20, 20]);
    for (const connection of connections) await connection.close();
  });
});

Deno.test("demo's database rolls back the transaction of a connection that is lost", async () => {
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

Deno.test("demo's database refuses encryption, which it does not support", async () => {
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
