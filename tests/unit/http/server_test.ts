/** The HTTP server alone: which requests it answers, and how it handles clients that do not read. */
import assert from "node:assert/strict";
import type { Status, Update } from "../../../lib/monitoring/status.ts";
import { makeSensorStatuses, makeStatus, serve } from "../../fakes/fake_monitor.ts";
import { EventReader } from "../../support/event_reader.ts";
import { delay, waitUntil } from "../../support/poll.ts";
import { LOOPBACK } from "../../support/ports.ts";

/** Sends a request as it is, and returns the connection. */
async function send(port: number, request: string): Promise<Deno.TcpConn> {
  const connection = await Deno.connect({ hostname: LOOPBACK, port });
  await connection.write(new TextEncoder().encode(request));
  return connection;
}

async function readAll(connection: Deno.TcpConn): Promise<string> {
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(65_536);
  let text = "";
  try {
    for (let size; (size = await connection.read(buffer)) !== null;) {
      text += decoder.decode(buffer.subarray(0, size), { stream: true });
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.ConnectionReset)) throw error;
  }
  return text;
}

async function ask(port: number, host: string): Promise<string> {
  using connection = await send(
    port,
    `GET /healthz HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`,
  );
  return await readAll(connection);
}

Deno.test("a server on a loopback address answers requests for localhost only", async () => {
  await using served = serve();
  const { port, lines } = served;
  const cases = [
    ...["localhost", `localhost:${port}`, "LOCALHOST", LOOPBACK, "127.0.0.1:1", "[::1]:80"]
      .map((host) => [host, 200] as const),
    ...["192.0.2.7", "[2001:db8::7]"].map((host) => [host, 200] as const),
    ...["evil.example", "localhost.evil.example", `evil.example:${port}`, "127.0.0.1.evil.example"]
      .map((host) => [host, 403] as const),
    ...["a:99999", "[", "a b", "%"].map((host) => [host, 400] as const),
  ] as const;
  for (const [host, status] of cases) {
    assert.match(await ask(port, host), new RegExp(`^HTTP/1.1 ${status} `), host);
  }
  const refusal = await ask(port, "evil.example");
  assert.match(
    refusal,
    /\r\n\r\nthis logger answers requests for localhost, not for 'evil\.example'\n$/,
  );
  assert.deepEqual(lines.filter((line) => !line.includes("status page at")), []);
});

Deno.test("a server on another address answers requests for any name", async () => {
  await using served = serve(makeStatus(), { host: "0.0.0.0" });
  assert.match(await ask(served.port, "kraken.example"), /^HTTP\/1.1 200 /);
  assert.match(await ask(served.port, "a:99999"), /^HTTP\/1.1 400 /);
});

Deno.test("a viewer that does not read is disconnected, and its unread events are discarded", async () => {
  await using served = serve();
  const { port, viewers, lines } = served;
  const request = "GET /api/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  using connection = await send(port, request);
  await waitUntil(() => viewers.size === 1, { what: "the viewer" });
  const update = { text: "x".repeat(2 ** 20) } as unknown as Update;
  let sent = 0;
  for (; viewers.size > 0; sent++) {
    assert.ok(sent < 100, "the viewer is never disconnected");
    for (const viewer of viewers) viewer(update);
    // The kernel buffers some of it.
    await delay(10);
  }
  const text = await readAll(connection);
  // The end of a body that is complete (RFC 9112, section 7.1).
  assert.ok(!text.endsWith("\r\n0\r\n\r\n"), "all updates were kept");
  // The last update was refused; of the others, those still queued were discarded.
  assert.ok(text.length < (sent - 2) * 2 ** 20, `${text.length} bytes of ${sent} MiB`);
  assert.deepEqual(lines.filter((line) => !line.includes("status page at")), []);
});

Deno.test("the sensors are sent in several events, so that a slow line does not look broken", async () => {
  const sensors = makeSensorStatuses(250);
  await using served = serve(makeStatus({ sensors }));
  await using viewer = await EventReader.open(`${served.url}api/events`);
  assert.deepEqual((await viewer.next("status") as Status).sensors, []);
  const entries: Update["sensors"][number][] = [];
  while (entries.length < 250) {
    const some = await viewer.next("sensors") as Update["sensors"];
    assert.ok(some.length <= 100);
    entries.push(...some);
  }
  assert.deepEqual(entries, sensors.map((sensor, index) => ({ index, ...sensor })));
});

Deno.test("the server stops although no client reads its answers", async () => {
  const served = serve();
  const { port, viewers } = served;
  const request = "GET /page/uplot.js HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2_000);
  using connection = await send(port, request);
  using viewer = await send(port, "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
  await waitUntil(() => viewers.size === 1, { what: "the viewer" });
  await served[Symbol.asyncDispose]();
  const text = await readAll(connection);
  assert.match(text, /^HTTP\/1.1 200 /);
  assert.ok(text.split("HTTP/1.1 200 ").length < 2_000, "all answers were sent");
  assert.match(await readAll(viewer), /event: status/);
});
