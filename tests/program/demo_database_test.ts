/** The database of the demo, which serves several connections from one session. */
import { PGlite } from "@electric-sql/pglite";
import assert from "node:assert/strict";
import { connect } from "node:net";
import { type PGliteServer, servePGlite } from "../../demo/pglite_server.ts";
import { DEFAULT_TUNING } from "../../lib/config/tuning.ts";
import { DatabaseConnection } from "../../lib/database/connection.ts";
import { schemaStatements } from "../../lib/database/schema.ts";
import { LOOPBACK } from "../support/ports.ts";

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
