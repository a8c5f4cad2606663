/** Warnings about the session that a broker has granted. */
import assert from "node:assert/strict";
import type { MqttConfig } from "../../../lib/config/mqtt.ts";
import type { BrokerLimits } from "../../../lib/mqtt/broker_limits.ts";
import { SessionWarnings } from "../../../lib/mqtt/session_warnings.ts";
import { FakeBrokers, type FakeConnection, mqttConfig } from "../../fakes/fake_connections.ts";
import { FakeTime } from "../../fakes/fake_time.ts";
import { captureLog, withoutTime } from "../../support/captured_log.ts";

const ENDPOINTS = ["one", "two"].map((host) => ({ host, port: 1883 }));

interface Scene {
  readonly warnings: SessionWarnings;
  readonly lines: () => string[];
  /** A connection to the broker of this number, as a CONNACK with these limits makes it. */
  readonly connect: (limits?: Partial<BrokerLimits>, broker?: number) => Promise<FakeConnection>;
}

function createScene(
  { hadSession = false, ...changes }: Partial<MqttConfig> & { readonly hadSession?: boolean } = {},
): Scene {
  const lines = captureLog();
  const config = mqttConfig(changes);
  const warnings = new SessionWarnings(config, { hadSession });
  const brokers = new FakeBrokers();
  return {
    warnings,
    lines: () => lines.map(withoutTime),
    connect: async (limits = {}, broker = 0) => {
      const endpoint = config.endpoints[broker];
      assert.ok(endpoint);
      brokers.limits = limits;
      const options = { endpoint, protocolVersion: config.protocolVersion ?? 5 };
      const connection = await brokers.open(options as Parameters<typeof brokers.open>[0]);
      warnings.connected(connection);
      return connection;
    },
  };
}

Deno.test("a first session and one that was kept are no reason for a warning", async () => {
  const { warnings, lines, connect } = createScene();
  await connect({ sessionPresent: false });
  warnings.disconnected();
  await connect({ sessionPresent: true });
  assert.deepEqual(lines(), []);
});

Deno.test("each lost session is warned of, with the time since when messages are lost", async () => {
  using time = new FakeTime();
  const { warnings, lines, connect } = createScene();
  await connect();
  for (const seconds of [12.3, 3_600]) {
    warnings.disconnected();
    await time.pass(seconds * 1_000);
    await connect({ sessionPresent: false });
  }
  assert.equal(lines().length, 2);
  for (const [index, duration] of ["12.3 s", "3600.0 s"].entries()) {
    const line = lines()[index] ?? "";
    assert.match(line, /^WARNING +The broker has lost the session of MQTT_CLIENT_ID 'logger'\./);
    assert.match(line, /published since \d\d:\d\d:\d\d \(.* s\) were not queued and are lost\.$/);
    assert.ok(line.includes(`(${duration})`), line);
  }
});

Deno.test("the session of an earlier run counts, if there is only one broker", async () => {
  const single = createScene({ hadSession: true });
  await single.connect();
  assert.match(single.lines().join(), /since the last run of the logger were not queued/);
  const several = createScene({ hadSession: true, endpoints: ENDPOINTS });
  await several.connect();
  assert.deepEqual(several.lines(), []);
});

Deno.test("a broker of a list that never had the session has not lost it", async () => {
  const { warnings, lines, connect } = createScene({ endpoints: ENDPOINTS });
  await connect({}, 0);
  warnings.disconnected();
  await connect({}, 1);
  assert.deepEqual(lines(), []);
  warnings.disconnected();
  await connect({}, 1);
  assert.match(lines().join(), /has lost the session/);
});

Deno.test("without a client id there is no session to lose", async () => {
  const { warnings, lines, connect } = createScene({ clientId: undefined });
  await connect();
  warnings.disconnected();
  await connect({ sessionExpirySeconds: 0 });
  assert.deepEqual(lines(), []);
});

Deno.test("a session that the broker deletes earlier than requested is warned of once", async () => {
  const { lines, connect } = createScene();
  await connect({ sessionExpirySeconds: 5_400 });
  await connect({ sessionExpirySeconds: 5_400, sessionPresent: true });
  await connect({ sessionExpirySeconds: undefined, sessionPresent: true });
  assert.deepEqual(lines(), [
    "WARNING  The broker deletes the session of this client, with the messages queued in it, 1.5 " +
    "hours after a disconnection.",
  ]);
});

Deno.test("a shared group with MQTT 3.1.1 is warned of once, because it may not work", async () => {
  const unknown = { sharedSubscriptions: undefined };
  const { lines, connect } = createScene({ sharedGroup: "g" });
  await connect({ sharedSubscriptions: true });
  assert.deepEqual(lines(), []);
  await connect({ ...unknown, sessionPresent: true });
  await connect({ ...unknown, sessionPresent: true });
  assert.match(lines().join("\n"), /MQTT_SHARED_GROUP receives no messages: run 'kraken-logger ch/);
  assert.equal(lines().length, 1);
  const other = createScene();
  await other.connect(unknown);
  assert.deepEqual(other.lines(), []);
});

Deno.test("a suspected takeover names the client id, once", () => {
  const { warnings, lines } = createScene();
  warnings.suspectTakeover("logger");
  warnings.suspectTakeover("logger");
  assert.match(lines().join("\n"), /^WARNING .*same client id, MQTT_CLIENT_ID 'logger'\.$/);
  assert.equal(lines().length, 1);
});

Deno.test("a refused filter is an ERROR until it is granted", () => {
  const { warnings, lines } = createScene();
  const refused = { filter: "a/#", granted: "not authorized" };
  assert.equal(warnings.isGranted(refused), false);
  assert.equal(warnings.isGranted(refused), false);
  assert.equal(warnings.isGranted({ filter: "b", granted: 1 }), true);
  assert.equal(warnings.isGranted({ filter: "a/#", granted: 1 }), true);
  assert.equal(warnings.isGranted(refused), false);
  assert.deepEqual(lines().map((line) => line.split(" ")[0]), ["ERROR", "INFO", "ERROR"]);
  assert.match(lines()[0] ?? "", /Subscription to 'a\/#' was refused: not authorized\. Retrying/);
  assert.equal(lines()[1], "INFO     Subscription to 'a/#' was granted.");
});

Deno.test("a lower QoS than configured is granted with a warning that says what is lost", () => {
  const { warnings, lines } = createScene({ qos: 2 });
  for (const granted of [0, 1, 2, 1] as const) {
    assert.equal(warnings.isGranted({ filter: "a", granted }), true);
  }
  assert.deepEqual(lines(), [
    "WARNING  The broker granted QoS 0 for 'a' instead of 2. Messages are lost whenever the " +
    "connection is interrupted.",
    "WARNING  The broker granted QoS 1 for 'a' instead of 2. Nothing is lost by that: a repeated " +
    "reading is stored once.",
  ]);
});
