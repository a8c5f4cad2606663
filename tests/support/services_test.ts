/**
 * The services that the other tests use: each variant starts, fails and recovers on request.
 */
import assert from "node:assert/strict";
import { type AedesBroker, startAedes } from "./aedes_broker.ts";
import { startBroker } from "./broker.ts";
import type { TestBroker } from "./broker_types.ts";
import { type MosquittoBroker, startMosquitto } from "./mosquitto.ts";
import { waitUntil } from "./poll.ts";
import { isListening } from "./ports.ts";
import { startPostgres } from "./postgres.ts";
import { LOGGER_ROLE } from "./postgres_database.ts";
import { isAlive, runProgram, TestProcess } from "./process.ts";
import { startProxy } from "./proxy.ts";
import { publishPayloads, publishReadings } from "./publisher.ts";
import { expectStored, makeReadings, makeSensors, type Reading } from "./readings.ts";
import { runSql } from "./sql.ts";
import { subscribe } from "./subscriber.ts";
import { lacks } from "./programs.ts";

const SENSORS = makeSensors(3);

for (const variant of ["installed", "npm"] as const) {
  Deno.test(`PostgreSQL (${variant}) keeps committed rows across stop, SIGKILL and suspension`, {
    ignore: variant === "installed" && lacks("postgres", "initdb"),
  }, async () => {
    await using postgres = await startPostgres({ variant });
    assert.equal(postgres.variant, variant);
    assert.match(postgres.version, /^\d+\.\d+$/);
    const database = await postgres.createDatabase({ name: `it's "${variant}"` });
    await database.registerSensors(SENSORS);
    await database.query("INSERT INTO sensor_data VALUES (now(), 1, 1.5)");

    const { port } = postgres;
    await postgres.stop();
    assert.equal(await isListening(port), false);
    await postgres.start();
    assert.equal(postgres.port, port);
    await database.query("INSERT INTO sensor_data VALUES (now(), 1, 2.5)");
    await postgres.kill("SIGKILL");
    await assert.rejects(database.countReadings(), { code: "ECONNREFUSED" });
    await postgres.start();
    assert.equal(await database.countReadings(), 2);
    assert.ok(postgres.logLines.some((line) => line.includes("automatic recovery in progress")));

    await postgres.kill("SIGSTOP");
    let isAnswered = false;
    const answer = database.countReadings().then((count) => {
      isAnswered = true;
      return count;
    });
    await waitUntil(() => isListening(port));
    assert.equal(isAnswered, false);
    await postgres.kill("SIGCONT");
    assert.equal(await answer, 2);
  });
}

Deno.test("the logger's role can do only what it was granted", async () => {
  await using postgres = await startPostgres();
  const database = await postgres.createDatabase({ name: "sensors", valueType: "numeric" });
  await database.registerSensors([...SENSORS, { uuid: crypto.randomUUID(), enabled: false }]);
  const insert = "INSERT INTO sensor_data VALUES ('2026-01-01', 1, 0.10000000000000000555)";
  await database.queryAsLogger(insert);
  const stored = await database.queryAsLogger("SELECT value::text FROM sensor_data");
  assert.deepEqual(stored, [{ value: "0.10000000000000000555" }]);
  await assert.rejects(database.queryAsLogger(insert), { code: "23505" });
  const refused = [
    "UPDATE sensor_data SET value = 2",
    "DELETE FROM sensor_data",
    "TRUNCATE sensor_data",
    "INSERT INTO sensors (uuid) VALUES (gen_random_uuid())",
    "UPDATE sensors SET enabled = true",
    "CREATE TABLE public.mine (id integer)",
    "CREATE TEMPORARY TABLE mine (id integer)",
  ];
  for (const sql of refused) {
    await assert.rejects(database.queryAsLogger(sql), { code: "42501" }, sql);
  }
  const wrong = { ...database.logger, password: "wrong" };
  await assert.rejects(runSql(wrong, "SELECT 1"), { code: "28P01" });
  assert.equal(database.logger.user, LOGGER_ROLE);
});

Deno.test("expectStored accepts the sent readings, and names missing, extra and changed ones", async () => {
  await using postgres = await startPostgres();
  const database = await postgres.createDatabase({ name: "sensors" });
  await database.registerSensors(SENSORS);
  const special = [NaN, Infinity, -Infinity, -0, 5e-324, 1.7976931348623157e308];
  const readings: Reading[] = makeReadings({ count: 500, sensors: SENSORS, startTimeUs: -3n })
    .map((reading, index) => ({ ...reading, value: special[index] ?? reading.value }));
  assert.deepEqual(readings, [...new Set(readings)]);
  const store = async (list: readonly Reading[]): Promise<void> => {
    await database.query(
      `INSERT INTO sensor_data
       SELECT 'epoch'::timestamptz + t * interval '1 microsecond', id, v
       FROM unnest($1::bigint[], $2::uuid[], $3::int[], $4::text[]::float8[]) r (t, u, s, v)
       JOIN sensors ON uuid = u AND sensor_sid = s`,
      [
        list.map((reading) => String(reading.timeUs)),
        list.map((reading) => reading.uuid),
        list.map((reading) => reading.sid),
        list.map((reading) => Object.is(reading.value, -0) ? "-0" : String(reading.value)),
      ],
    );
  };
  await store(readings.slice(1));
  await assert.rejects(expectStored(database, readings), /499 rows, 1 missing, 0 extra, 0 with/);
  await store(readings.slice(0, 1));
  await expectStored(database, readings);
  await assert.rejects(expectStored(database, readings.slice(2)), /0 missing, 2 extra, 0 with/);
  await database.query("UPDATE sensor_data SET value = 0 WHERE value = 0");
  await assert.rejects(expectStored(database, readings), /0 missing, 0 extra, 1 with.*sent -0/s);
});

for (const kind of ["mosquitto", "aedes"] as const) {
  Deno.test(`${kind} delivers 1000 messages, and queues messages for a disconnected session`, {
    ignore: kind === "mosquitto" && lacks("mosquitto"),
  }, async () => {
    await using broker: TestBroker = kind === "aedes" ? await startAedes() : await startMosquitto();
    assert.equal(broker.kind, kind);
    const readings = makeReadings({ count: 1000 });
    const session = { clientId: "absent", qos: 2 } as const;
    {
      await using subscriber = await subscribe(broker, session);
      assert.equal(await publishReadings(broker, readings), 1000);
      await subscriber.waitForCount(1000);
      assert.equal(new Set(subscriber.messages.map((message) => message.payload)).size, 1000);
    }
    await publishPayloads(broker, ["one", new Uint8Array([0x74, 0x77, 0x6f])], { qos: 1 });
    const { port } = broker;
    await broker.restart();
    assert.equal(broker.port, port);
    {
      await using subscriber = await subscribe(broker, session);
      // Aedes resends some of the earlier messages, which a broker may do.
      const isThere = (text: string): boolean =>
        subscriber.messages.some(({ payload }) => payload === text);
      await waitUntil(() => isThere("one") && isThere("two"), { what: "the queued messages" });
    }
    await publishPayloads(broker, ["lost"], { qos: 2 });
    await broker.restart({ keepStore: false });
    await using subscriber = await subscribe(broker, session);
    await publishPayloads(broker, ["last"], { qos: 2, topic: "sensors/kept", retain: true });
    await subscriber.waitForCount(1);
    assert.deepEqual(subscriber.messages.map((message) => message.payload), ["last"]);
  });

  Deno.test(`${kind} refuses a user with a wrong password`, {
    ignore: kind === "mosquitto" && lacks("mosquitto"),
  }, async () => {
    const users = { alice: "se cret", bob: "b" };
    await using broker: TestBroker = kind === "aedes"
      ? await startAedes({ users })
      : await startMosquitto({ users, acl: ["user alice", "topic readwrite #"] });
    await publishPayloads(broker, ["x"], { username: "alice", password: "se cret" });
    const wrong = { username: "alice", password: "b" };
    await assert.rejects(publishPayloads(broker, ["x"], wrong), /refused/);
    await assert.rejects(publishPayloads(broker, ["x"]), /refused/);
  });
}

Deno.test("Aedes refuses MQTT 5, and loses its sessions when it is killed", async () => {
  await using broker: AedesBroker = await startAedes();
  await assert.rejects(subscribe(broker, { protocolVersion: 5 }), /refused|protocol/i);
  await (await subscribe(broker, { clientId: "absent" }))[Symbol.asyncDispose]();
  await publishPayloads(broker, ["lost"]);
  await broker.kill();
  assert.equal(await isListening(broker.port), false);
  await broker.start();
  await using subscriber = await subscribe(broker, { clientId: "absent" });
  await publishPayloads(broker, ["kept"]);
  await subscriber.waitForCount(1);
  assert.equal(subscriber.messages[0]?.payload, "kept");
});

Deno.test("Mosquitto keeps its saved messages across SIGKILL, and loses the others", {
  ignore: lacks("mosquitto"),
}, async () => {
  await using broker: MosquittoBroker = await startMosquitto();
  await (await subscribe(broker, { clientId: "absent" }))[Symbol.asyncDispose]();
  await publishPayloads(broker, ["saved"], { qos: 2, protocolVersion: 5 });
  await broker.save();
  await publishPayloads(broker, ["lost"], { qos: 2 });
  await broker.kill();
  await assert.rejects(publishPayloads(broker, ["x"]), { code: "ECONNREFUSED" });
  await broker.start();
  await using subscriber = await subscribe(broker, { clientId: "absent" });
  await publishPayloads(broker, ["last"]);
  await subscriber.waitForCount(2);
  assert.deepEqual(subscriber.messages.map((message) => message.payload), ["saved", "last"]);
});

Deno.test("publishReadings resends unacknowledged messages after a restart of the broker", {
  ignore: lacks("mosquitto"),
}, async () => {
  await using broker = await startMosquitto();
  await using subscriber = await subscribe(broker, { clientId: "here", reconnectMs: 50 });
  const readings = makeReadings({ count: 20_000 });
  const published = publishReadings(broker, readings, { clientId: "sender", reconnectMs: 50 });
  await subscriber.waitForCount(1);
  await broker.restart();
  assert.ok(subscriber.messages.length < 20_000, "the restart came too late to be a fault");
  assert.equal(await published, 20_000);
  const count = (): number => new Set(subscriber.messages.map(({ payload }) => payload)).size;
  await waitUntil(() => count() === 20_000, { what: "all readings" });
});

Deno.test("startBroker starts Aedes if it is forced, also in CI", async () => {
  const script = `
    import { startBroker } from ${JSON.stringify(import.meta.resolve("./broker.ts"))};
    await using broker = await startBroker();
    console.log(broker.kind);`;
  const config = decodeURIComponent(new URL("../deno.json", import.meta.url).pathname);
  const run = async (env: Record<string, string>): Promise<string> => {
    const path = await Deno.makeTempFile({ suffix: ".ts" });
    await Deno.writeTextFile(path, script);
    const args = ["run", "-A", "--quiet", "--config", config, path];
    const { stdout, stderr } = await runProgram(Deno.execPath(), { args, env });
    await Deno.remove(path);
    return stdout.trim() || stderr;
  };
  assert.equal(await run({ KRAKEN_TEST_BROKER: "aedes", CI: "true" }), "aedes");
  await using broker = await startBroker();
  assert.equal(await run({ CI: "", KRAKEN_TEST_BROKER: "" }), broker.kind);
});

Deno.test("the proxy stalls, resets and refuses connections", async () => {
  await using postgres = await startPostgres();
  await using proxy = await startProxy(postgres);
  const target = { ...postgres.superuser(), port: proxy.port };
  const ask = async (): Promise<unknown> => (await runSql(target, "SELECT 1 AS one"))[0]?.["one"];
  assert.equal(await ask(), 1);
  assert.equal(proxy.acceptedConnections, 1);
  assert.ok(proxy.bytesToServer > 50 && proxy.bytesToClient > 50);

  for (const direction of ["both", "toServer", "toClient"] as const) {
    proxy.pause(direction);
    let isAnswered = false;
    const answer = ask().then((one) => {
      isAnswered = true;
      return one;
    });
    await waitUntil(() => proxy.openConnections === 1);
    await ((await Deno.connect({ port: proxy.port })).close());
    assert.equal(isAnswered, false);
    proxy.resume();
    assert.equal(await answer, 1);
  }

  proxy.pause();
  const lost = assert.rejects(ask(), { code: "ECONNRESET" });
  await waitUntil(() => proxy.openConnections === 1);
  assert.equal(proxy.reset(), 1);
  await lost;
  proxy.resume();
  await proxy.refuse();
  await assert.rejects(ask(), { code: "ECONNREFUSED" });
  await proxy.allow();
  assert.equal(await ask(), 1);
});

Deno.test("a process is awaited by its output, and killed with its descendants", async () => {
  await using shell = TestProcess.start("/bin/sh", {
    args: ["-c", "sleep 60 & echo first; echo error >&2; echo started $!; wait"],
    env: { PATH: "/usr/bin:/bin" },
    clearEnv: true,
  });
  const child = Number((await shell.waitForLine(/^started \d+$/)).split(" ")[1]);
  assert.equal(shell.stdoutLines[0], "first");
  await shell.waitForLine("error");
  assert.deepEqual(shell.stderrLines, ["error"]);
  assert.equal(isAlive(child), true);
  await assert.rejects(shell.waitForLine("never", { timeoutMs: 20 }), /not there after 20 ms/);
  await shell.killTree("SIGKILL");
  assert.equal(isAlive(child), false);
  assert.equal((await shell.finished()).signal, "SIGKILL");
  await assert.rejects(shell.waitForLine("never"), /killed by SIGKILL/);
});
