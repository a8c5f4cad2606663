/** The demo with a broker of the user's. */
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { listen } from "../../demo/listen.ts";
import { startAedes } from "../support/aedes_broker.ts";
import { assertAllStored, runDemo } from "../support/demo.ts";
import { LOOPBACK } from "../support/ports.ts";

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
