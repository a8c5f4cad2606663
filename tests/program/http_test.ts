/** The HTTP interface of the logger, with real services that fail and recover. */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, runLogger, startLogger } from "../support/logger_process.ts";
import { readDocument, readSection, readTableRows } from "../support/documents.ts";
import { delay, waitUntil } from "../support/poll.ts";
import { publishPayloads, publishReadings } from "../support/publisher.ts";
import { makeReadings } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  createSession,
  linesOf,
  SENSORS,
  stopCleanly,
  usePostgres,
  waitForRows,
} from "../support/harness.ts";
import {
  addressOf,
  getMetrics,
  getStatus,
  getText,
  statusCode,
  withHttp,
} from "../support/http_client.ts";

const postgres = usePostgres();

Deno.test("metrics and status count each message by its outcome", async () => {
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  const disabled = { uuid: crypto.randomUUID(), sid: 1 };
  const unknown = { uuid: crypto.randomUUID(), sid: 2 };
  const [named] = SENSORS;
  assert.ok(named);
  await database.registerSensors([{ ...disabled, enabled: false }, {
    ...named,
    label: "Oven <1>",
  }]);
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(withHttp(loggerEnv({ database, broker }, {
    SPOOL_DIRECTORY: directory.path,
  })));
  const address = await addressOf(logger);
  await logger.waitForLine("Connected to MQTT broker");
  await logger.waitForLine("Connected to database");
  const startTimeUs = BigInt(Date.now() - 5_000) * 1000n;
  const readings = makeReadings({ count: 100, startTimeUs });
  await publishReadings(broker, readings);
  await publishReadings(broker, readings.slice(0, 10));
  await publishReadings(broker, makeReadings({ count: 3, sensors: [disabled] }));
  await publishReadings(broker, makeReadings({ count: 4, sensors: [unknown] }));
  const topic = `sensors/${"long".repeat(1_000)}`;
  await publishPayloads(broker, ['{"value": 1}', "garbage"], { topic });
  const unit = JSON.stringify({
    ...{ timestamp: Date.now() / 1000 + 60, uuid: named.uuid, sid: named.sid },
    ...{ value: 21.5, unit: "°C" },
  });
  await publishPayloads(broker, [unit]);
  await waitForRows(database, 101);

  const status = await waitUntil(async () => {
    const now = await getStatus(address);
    const ended = now.counts.rejected === 2 && now.counts.waiting === 0;
    return ended && now.sensors.some(({ label }) => label !== null) ? now : null;
  }, { what: "all outcomes and the labels" });
  assert.deepEqual(status.counts, {
    ...{ received: 120, redelivered: 0, found: 0, spooled: 0, waiting: 0 },
    ...{ stored: 101, duplicate: 10, unknown: 4, disabled: 3, rejected: 2, dropped: 0 },
  });
  assert.equal(status.problem, null);
  assert.match(status.broker.text, /^connected to MQTT broker '/);
  assert.match(status.database.text, /^connected to database /);
  assert.equal(status.spool?.messages, 0);
  assert.match(status.lastRejected?.reason ?? "", /JSON|timestamp|uuid/);
  assert.equal(status.lastRejected?.topic, `${topic.slice(0, 120)}…`);
  assert.match(status.lastUnknown?.reason ?? "", new RegExp(unknown.uuid));
  const states = status.sensors.map(({ uuid, state }) => [uuid, state]);
  assert.equal(status.sensors.length, SENSORS.length + 2);
  assert.ok(states.some(([uuid, state]) => uuid === disabled.uuid && state === "disabled"));
  assert.ok(states.some(([uuid, state]) => uuid === unknown.uuid && state === "unknown"));
  const first = status.sensors.find(({ uuid, sid }) => uuid === named.uuid && sid === named.sid);
  assert.deepEqual([first?.label, first?.value], ["Oven <1>", "21.5"]);

  const metrics = await getMetrics(address);
  const expected = {
    "kraken_messages_received_total": 120,
    "kraken_messages_total stored": 101,
    "kraken_messages_total duplicate": 10,
    "kraken_messages_total unknown": 4,
    "kraken_messages_total disabled": 3,
    "kraken_messages_total rejected": 2,
    "kraken_messages_total dropped": 0,
    "kraken_broker_connected": 1,
    "kraken_database_connected": 1,
    "kraken_broker_reconnects_total": 0,
    "kraken_healthy": 1,
    "kraken_waiting_messages": 0,
    "kraken_oldest_waiting_seconds": 0,
    "kraken_spool_messages": 0,
    "kraken_spool_max_bytes": 2 ** 30,
    "kraken_sensors": SENSORS.length + 2,
    "kraken_sensors_left_out": 0,
  };
  for (const [name, value] of Object.entries(expected)) {
    assert.equal(metrics.get(name), value, name);
  }
  assert.ok(metrics.has("kraken_build_info 0.1.0"));
  assert.ok((metrics.get("process_resident_memory_bytes") ?? 0) > 2e7);
  assert.ok((metrics.get("process_cpu_seconds_total") ?? 0) > 0);
  assert.ok((metrics.get("kraken_event_loop_lag_seconds") ?? -1) >= 0);
  // Every reading of an insert that stored at least one row.
  assert.ok((metrics.get("kraken_reading_latency_seconds_count") ?? 0) >= 101);
  assert.equal(
    metrics.get("kraken_reading_latency_seconds_bucket +Inf"),
    metrics.get("kraken_reading_latency_seconds_count"),
  );
  // Every reading of an insert, stored or not.
  assert.equal(metrics.get("kraken_batch_rows_sum"), 101 + 10 + 4 + 3);
  assert.ok((metrics.get("kraken_batch_duration_seconds_sum") ?? 0) > 0);
  const seen = [...metrics].filter(([name]) => name.startsWith("kraken_sensor_last_seen"));
  assert.equal(seen.length, SENSORS.length);
  assert.ok(seen.every(([, seconds]) => Math.abs(seconds - Date.now() / 1000) < 120));
  const families = [...metrics.keys()].map((name) =>
    name.replace(/_(bucket|count|sum)\b.*| .*/, "")
  );
  assert.deepEqual(new Set(listDocumentedMetrics()), new Set(families));
  const page = readDocument("docs/http-api.md");
  const undocumented = namesIn(status).filter((name) => !page.includes(`\`${name}\``));
  assert.deepEqual(undocumented, []);
  await stopCleanly(logger);
});

/** The names in the table of metrics. */
function listDocumentedMetrics(): string[] {
  return readTableRows(readSection("docs/monitoring.md", "Metrics")).flatMap(([names = ""]) =>
    [...names.matchAll(/`(\w+)/g)].map(([, name = ""]) => name)
  );
}

Deno.test("every address of docs/http-api.md answers", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await using logger = startLogger(withHttp(loggerEnv({ database, broker })));
  const address = await addressOf(logger);
  await logger.waitForLine("Connected to MQTT broker");
  await logger.waitForLine("Connected to database");
  const paths = readTableRows(readDocument("docs/http-api.md"))
    .map(([path = ""]) => /^`(\/[\w/]*)`$/.exec(path)?.[1]).filter((path) => path !== undefined);
  assert.ok(paths.length >= 6);
  for (const path of paths) {
    const response = await fetch(`${address}${path}`);
    await response.body?.cancel();
    assert.equal(response.status, 200, path);
  }
  await stopCleanly(logger);
});

/** The names of all fields of an answer. */
function namesIn(value: unknown): string[] {
  if (typeof value !== "object" || value === null) return [];
  const names = Array.isArray(value) ? [] : Object.keys(value);
  return [...names, ...Object.values(value).flatMap(namesIn)];
}

Deno.test("readiness depends on broker and database, health does not", async () => {
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(withHttp(loggerEnv({ database, broker }, {
    SPOOL_DIRECTORY: directory.path,
  })));
  const address = await addressOf(logger);
  const waitForReadiness = async (code: number, what: string): Promise<void> => {
    await waitUntil(async () => await statusCode(`${address}/readyz`) === code, {
      what,
      timeoutMs: 180_000,
    });
    assert.equal(await getText(`${address}/healthz`), "ok\n");
  };
  await waitForReadiness(200, "both connections");
  await postgres.server.stop();
  await publishReadings(broker, makeReadings({ count: 5 }));
  await waitForReadiness(503, "the database to be unavailable");
  const status = await waitUntil(async () => {
    const now = await getStatus(address);
    return now.counts.spooled === 5 ? now : null;
  }, { what: "the readings in the spool" });
  assert.deepEqual([status.database.connected, status.broker.connected], [false, true]);
  const metrics = await getMetrics(address);
  assert.deepEqual(
    ["kraken_database_connected", "kraken_spool_messages"].map((name) => metrics.get(name)),
    [0, 5],
  );
  assert.ok((metrics.get("kraken_oldest_waiting_seconds") ?? 0) > 0);
  await postgres.server.start();
  await waitForReadiness(200, "the database to be back");
  await broker.stop();
  await waitForReadiness(503, "the broker to be unavailable");
  await broker.start();
  await waitForReadiness(200, "the broker to be back");
  const after = await getStatus(address);
  assert.deepEqual([after.broker.reconnects, after.database.reconnects], [1, 1]);
  await waitForRows(database, 5);
  await stopCleanly(logger);
});

Deno.test("the HTTP server is read-only, and protects its page by headers", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await using logger = startLogger(withHttp(loggerEnv({ database, broker })));
  const address = await addressOf(logger);
  for (const path of ["/", "/page/page.js", "/page/uplot.js", "/metrics", "/api/status"]) {
    const response = await fetch(`${address}${path}`, { method: "HEAD" });
    assert.equal(response.status, 200, path);
    assert.equal(response.headers.get("x-content-type-options"), "nosniff");
    assert.match(response.headers.get("content-security-policy") ?? "", /default-src 'none'/);
    assert.equal(await response.text(), "");
  }
  assert.match(await getText(`${address}/`), /<title>Kraken logger<\/title>/);
  assert.equal(await statusCode(`${address}/api/events`, { method: "HEAD" }), 200);
  assert.equal(await statusCode(`${address}/nothing`), 404);
  assert.equal(await statusCode(`${address}/page/../main.ts`), 404);
  for (const method of ["POST", "PUT", "DELETE"]) {
    assert.equal(await statusCode(`${address}/api/status`, { method }), 405);
  }
  await stopCleanly(logger);
});

Deno.test("healthcheck reports the health of the logger on HTTP_PORT, or that there is none", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  const env = withHttp(loggerEnv({ database, broker }, { HTTP_HOST: "0.0.0.0" }));
  {
    await using logger = startLogger(env);
    await logger.waitForLine("status page at");
    const { code, stdout } = await runLogger(["healthcheck"], env);
    assert.deepEqual([code, stdout], [0, "ok\n"]);
    await stopCleanly(logger);
  }
  const gone = await runLogger(["healthcheck"], env);
  assert.equal(gone.code, 1);
  assert.match(
    gone.stdout,
    /^No answer from the logger at '127\.0\.0\.1:\d+': connection refused.*\n$/,
  );
  const unset = await runLogger(["healthcheck"], {});
  assert.equal(unset.code, 78);
  assert.match(unset.stderr, /^HTTP_PORT: must be set to the port of the running logger$/m);
});

Deno.test("run does not start if its HTTP address cannot be used", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const env = loggerEnv({ database, broker });
  const cases = [
    [{ HTTP_PORT: String(listener.addr.port) }, "the port is in use by another program"],
    [{ HTTP_PORT: "18080", HTTP_HOST: "192.0.2.1" }, "the address does not belong to this host"],
  ] as const;
  for (const [http, reason] of cases) {
    await using logger = startLogger({ ...env, ...http });
    assert.equal((await logger.exited).code, 1);
    const [line = ""] = linesOf(logger, "CRITICAL");
    assert.match(line, /^Cannot listen on '.*' \(HTTP_HOST, HTTP_PORT\): /);
    assert.ok(line.includes(reason), line);
  }
});

Deno.test("the first metrics have labels, and every enabled sensor is listed", async () => {
  const database = await postgres.createDatabase();
  const [publishing, ...others] = SENSORS.map((sensor, index) => ({
    ...sensor,
    label: `Sensor ${index}`,
    // The last sensor is not enabled, and does not publish.
    enabled: index < SENSORS.length - 1,
  }));
  assert.ok(publishing);
  await database.registerSensors([publishing, ...others]);
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(withHttp(loggerEnv({ database, broker })));
  const address = await addressOf(logger);
  await logger.waitForLine("Connected to MQTT broker");
  await publishReadings(broker, makeReadings({ count: 3, sensors: [publishing] }));
  await waitForRows(database, 3);
  // These are the first requests.
  const { uuid, sid, label } = publishing;
  const series = "kraken_sensor_last_seen_timestamp_seconds";
  const metrics = [...(await getMetrics(address)).keys()];
  assert.deepEqual(metrics.filter((name) => name.startsWith(series)), [
    `${series} ${uuid} ${sid} ${label}`,
  ]);
  const { sensors } = await getStatus(address);
  assert.deepEqual(
    sensors.map(({ label, state }) => `${label}: ${state}`).sort(),
    [`${label}: stored`, ...others.slice(0, -1).map(({ label }) => `${label}: silent`)],
  );
  await stopCleanly(logger);
});

Deno.test("reading the metrics does not reset the longest delay", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await using logger = startLogger(withHttp(loggerEnv({ database, broker })));
  const address = await addressOf(logger);
  await logger.waitForLine("Connected to MQTT broker");
  logger.signal("SIGSTOP");
  // The duration of the suspension is the fault itself.
  await delay(1_000);
  logger.signal("SIGCONT");
  const readLag = async (): Promise<number> =>
    (await getMetrics(address)).get("kraken_event_loop_lag_seconds") ?? 0;
  await waitUntil(async () => await readLag() > 0.5, { what: "the delay in the metrics" });
  assert.ok(await readLag() > 0.5, "the delay was reported only once");
  await stopCleanly(logger);
});
