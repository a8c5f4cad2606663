/** The demo: what it stores and prints, and how it ends. */
import assert from "node:assert/strict";
import type { Status } from "../../lib/monitoring/status.ts";
import { assertAllStored, demoArgs, runDemo } from "../support/demo.ts";
import { waitUntil } from "../support/poll.ts";
import { LOOPBACK } from "../support/ports.ts";
import { TestProcess } from "../support/process.ts";

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
