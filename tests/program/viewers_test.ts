/** Several viewers of the event stream at the same time, until the logger stops. */
import assert from "node:assert/strict";
import type { Status, Update } from "../../lib/monitoring/status.ts";
import { startBroker } from "../support/broker.ts";
import { startDaemon } from "../support/daemon.ts";
import { EventReader } from "../support/event_reader.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { waitUntil } from "../support/poll.ts";
import { publishPayloads, publishReadings } from "../support/publisher.ts";
import { makeReadings } from "../support/readings.ts";
import { createSession, SENSORS, stopCleanly, usePostgres } from "../support/harness.ts";
import { addressOf, getStatus, getText, statusCode, withHttp } from "../support/http_client.ts";

const postgres = usePostgres();

Deno.test("every viewer gets every change until the logger stops", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(withHttp(loggerEnv({ database, broker })));
  const address = await addressOf(logger);
  await logger.waitForLine("Connected to database");
  await using viewer = await EventReader.open(`${address}/api/events`);
  const status = await viewer.next("status") as Status;
  // The enabled sensors follow later: they are read from the database only now.
  assert.deepEqual(status.sensors, []);
  const [sensor] = SENSORS;
  assert.ok(sensor);
  const startTimeUs = BigInt(Date.now()) * 1000n;
  const readings = makeReadings({ count: 50, sensors: [sensor], startTimeUs });
  await publishReadings(broker, readings);
  let received = status.history.reduce((sum, sample) => sum + sample.received, 0);
  let index: number | undefined;
  while (received < 50) {
    const { sample, sensors } = await viewer.next("update") as Update;
    received += sample.received;
    index ??= sensors.find(({ uuid }) => uuid === sensor.uuid)?.index;
  }
  assert.equal(received, 50);
  assert.notEqual(index, undefined);
  await using second = await EventReader.open(`${address}/api/events`);
  const later = await second.next("status") as Status;
  const listed = await second.next("sensors") as Update["sensors"];
  assert.equal(listed.find(({ uuid }) => uuid === sensor.uuid)?.index, index);
  assert.equal(later.history.reduce((sum, sample) => sum + sample.received, 0), 50);
  await publishPayloads(broker, [JSON.stringify({
    ...{ timestamp: Date.now() / 1000 + 60, uuid: sensor.uuid, sid: sensor.sid, value: 4711 },
  })]);
  for (const reader of [viewer, second]) {
    for (let isTold = false; !isTold;) {
      const { changes } = await reader.next("update") as Update;
      isTold = changes.some(([at, state, value]) =>
        at === index && state === "stored" && value === "4711"
      );
    }
  }
  await stopCleanly(logger);
  await assert.rejects(async () => {
    for (;;) await viewer.next("update");
  }, /the stream has ended/);
});

Deno.test("more than fifty viewers are refused, until one disconnects", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await using logger = startLogger(withHttp(loggerEnv({ database, broker })));
  const address = await addressOf(logger);
  const readers = await Promise.all(
    Array.from({ length: 50 }, () => EventReader.open(`${address}/api/events`)),
  );
  try {
    for (const method of ["GET", "HEAD"]) {
      assert.equal(await statusCode(`${address}/api/events`, { method }), 503);
    }
    await readers.pop()?.[Symbol.asyncDispose]();
    const last = await waitUntil(async () => {
      const response = await fetch(`${address}/api/events`);
      if (response.status === 200) return new EventReader(response);
      await response.body?.cancel();
      return null;
    }, { what: "a free place" });
    readers.push(last);
    assert.ok(await last.next("status"));
  } finally {
    await Promise.all(readers.map((reader) => reader[Symbol.asyncDispose]()));
  }
  await stopCleanly(logger);
});

Deno.test("other clients do not change what a viewer receives", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await using logger = startLogger(withHttp(loggerEnv({ database, broker })));
  const address = await addressOf(logger);
  await logger.waitForLine("Connected to MQTT broker");
  await logger.waitForLine("Connected to database");
  const [sensor] = SENSORS;
  assert.ok(sensor);
  await using daemon = startDaemon(broker, {
    qos: 1,
    rate: 50,
    message: (index) => ({
      topic: "sensors/test",
      payload: JSON.stringify({ timestamp: Date.now() / 1000, ...sensor, value: index }),
    }),
  });
  await using viewer = await EventReader.open(`${address}/api/events`);
  const { history } = await viewer.next("status") as Status;
  const times = history.map(({ timeMs }) => timeMs);
  let others = 0;
  for (let updates = 0; updates < 4; updates++) {
    let isTold = false;
    const update = viewer.next("update").finally(() => isTold = true) as Promise<Update>;
    for (; !isTold; others++) {
      await using other = await EventReader.open(`${address}/api/events`);
      await other.next("status");
      await getStatus(address);
      await getText(`${address}/metrics`);
    }
    times.push((await update).sample.timeMs);
  }
  assert.ok(others >= 4, `${others} other requests`);
  assert.deepEqual(times, [...new Set(times)].sort((a, b) => a - b), "a second was reported twice");
  const status = await getStatus(address);
  const { recent = [] } = status.sensors.find(({ uuid }) => uuid === sensor.uuid) ?? {};
  assert.ok(recent.length > 2);
  assert.ok(recent.length <= status.history.length, "more than one value a second");
  await daemon.finish();
  await stopCleanly(logger);
});

Deno.test("a client that does not read does not prevent a clean exit", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await using logger = startLogger(withHttp(loggerEnv({ database, broker })));
  const { hostname, port } = new URL(await addressOf(logger));
  await logger.waitForLine("Connected to MQTT broker");
  await logger.waitForLine("Connected to database");
  const send = async (path: string, times: number): Promise<Deno.TcpConn> => {
    const connection = await Deno.connect({ hostname, port: Number(port) });
    const request = `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`;
    await connection.write(new TextEncoder().encode(request.repeat(times)));
    return connection;
  };
  // Far more than the kernel buffers.
  using impolite = await send("/page/uplot.js", 1_000);
  using viewer = await send("/api/events", 1);
  const start = new Uint8Array(12);
  for (const connection of [impolite, viewer]) {
    await connection.read(start);
    assert.equal(new TextDecoder().decode(start), "HTTP/1.1 200");
  }
  await stopCleanly(logger);
  assert.deepEqual(logger.lines.filter((line) => /Uncaught|error:/i.test(line)), []);
});
