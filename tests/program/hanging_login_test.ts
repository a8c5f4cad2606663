/** A database that answers the login and hangs afterwards. */
import assert from "node:assert/strict";
import { createServer, type Socket } from "node:net";
import { once } from "node:events";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { createSession, usePostgres } from "../support/harness.ts";

const postgres = usePostgres();

/** AuthenticationOk and ReadyForQuery (PostgreSQL manual, section "Message Formats"). */
const WELCOME = Uint8Array.of(0x52, 0, 0, 0, 8, 0, 0, 0, 0, 0x5a, 0, 0, 0, 5, 0x49);

/** CommandComplete of a SELECT, and ReadyForQuery. */
const COMPLETE = Uint8Array.of(
  0x43,
  0,
  0,
  0,
  11,
  ...new TextEncoder().encode("SELECT\0"),
  0x5a,
  0,
  0,
  0,
  5,
  0x49,
);

Deno.test("run ends in time while the database hangs right after the login", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const hanging = Promise.withResolvers<void>();
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    const answers = [WELCOME, COMPLETE];
    socket.on("error", () => {});
    socket.on("data", () => {
      const answer = answers.shift();
      if (answer === undefined) hanging.resolve();
      else socket.write(answer);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    const { port } = server.address() as { port: number };
    await using logger = startLogger(loggerEnv({ database, broker }, {
      DATABASE_HOST: "127.0.0.1",
      DATABASE_PORT: String(port),
      DATABASE_SSLMODE: "disable",
    }));
    await logger.waitForLine("Connected to MQTT broker");
    await hanging.promise;
    const startMs = performance.now();
    assert.equal(await logger.stop(), 0);
    // The limit of ten seconds is for in-flight messages; here there are none.
    assert.ok(performance.now() - startMs < 10_000);
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, "close");
  }
});
