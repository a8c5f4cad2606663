/** The subscriber: connecting, reconnecting, subscribing, and the end. */
import assert from "node:assert/strict";
import { MqttNoAnswerError } from "../../../lib/mqtt/errors.ts";
import { SubscriberScene } from "../../fakes/subscriber_scene.ts";

const ENDPOINTS = ["one", "two", "three"].map((host) => ({ host, port: 1883 }));

/** Fails the attempts to connect to these brokers. */
function refuse(scene: SubscriberScene, ...hosts: readonly string[]): void {
  scene.brokers.onOpen = ({ endpoint: { host } }) => {
    if (hosts.includes(host)) throw new Error(`${host} refuses`);
  };
}

Deno.test("the subscriber connects and subscribes with the configured QoS", async () => {
  using scene = new SubscriberScene({ config: { filters: ["a/#", "b/+"], qos: 2 } });
  scene.brokers.grant = () => 2;
  await scene.start();
  assert.deepEqual(scene.brokers.calls, ["open broker", "subscribe a/# b/+ 2"]);
  const { clientId, persistent, protocolVersion } = scene.brokers.last.options;
  assert.deepEqual([clientId, persistent, protocolVersion], ["logger", true, 5]);
  assert.deepEqual(scene.lines("INFO"), [
    "INFO     Connected to MQTT broker 'broker:1883' (MQTT 5, new session).",
  ]);
  assert.deepEqual(
    [scene.subscriber.connectionStatus.connected, scene.subscriber.attempts],
    [true, 1],
  );
  await scene.end();
});

Deno.test("without a client id the session is not kept, and the id is random", async () => {
  const ids = new Set<string>();
  for (let run = 0; run < 2; run++) {
    using scene = new SubscriberScene({ config: { clientId: undefined } });
    await scene.start();
    const { clientId, persistent } = scene.brokers.last.options;
    assert.equal(persistent, false);
    assert.match(clientId, /^kraken-[0-9a-f]{16}$/);
    ids.add(clientId);
    await scene.end();
  }
  assert.equal(ids.size, 2);
});

Deno.test("filters of a shared group are subscribed to in their shared form", async () => {
  using scene = new SubscriberScene({ config: { sharedGroup: "g", filters: ["a/#", "b"] } });
  await scene.start();
  assert.equal(scene.brokers.calls[1], "subscribe $share/g/a/# $share/g/b 1");
  await scene.end();
});

Deno.test("MQTT 3.1.1 is tried when a broker gives no answer to MQTT 5", async () => {
  using scene = new SubscriberScene({ config: { protocolVersion: undefined } });
  scene.brokers.onOpen = ({ protocolVersion }) => {
    if (protocolVersion === 5) throw new MqttNoAnswerError("the broker closed the connection");
  };
  await scene.start();
  assert.match(scene.lines("INFO").join(), /\(MQTT 3\.1\.1, new session\)/);
  await scene.end();
});

Deno.test("a broker that is down is retried more and more slowly, and logged once", async () => {
  using scene = new SubscriberScene();
  refuse(scene, "broker");
  await scene.start();
  const attempts: number[] = [];
  for (let minute = 0; minute < 3; minute++) {
    await scene.time.pass(60_000);
    attempts.push(scene.subscriber.attempts);
  }
  const [first = 0, second = 0, third = 0] = attempts;
  assert.ok(first > 9 && first < 21, `${first} attempts in the first minute`);
  assert.ok(third - second >= 4 && third - second <= 8, `${third - second} in the third minute`);
  assert.deepEqual(scene.lines("ERROR", "INFO"), [
    "ERROR    MQTT broker 'broker:1883' is not available: broker refuses. Retrying until it is.",
  ]);
  assert.deepEqual(
    [scene.subscriber.connectionStatus.connected, scene.subscriber.connectionStatus.text],
    [false, "broker refuses"],
  );
  refuse(scene);
  await scene.time.pass(15_000);
  assert.match(
    scene.lines("INFO").join("\n"),
    /^INFO .* is available again after 1\d\d\.\d s\.\nINFO +Connected to MQTT broker 'broker:1883'/,
  );
  await scene.end();
});

Deno.test("a connection that ends is made again and subscribed again", async () => {
  using scene = new SubscriberScene();
  await scene.start();
  await scene.time.pass(60_000);
  scene.brokers.limits = { sessionPresent: true };
  scene.brokers.last.end("the broker is shutting down");
  await scene.time.pass(0);
  assert.deepEqual(
    [scene.subscriber.connectionStatus.connected, scene.subscriber.connectionStatus.text],
    [false, "the broker is shutting down"],
  );
  await scene.time.pass(100);
  assert.equal(scene.subscriber.connectionStatus.reconnects, 1);
  const subscribe = "subscribe kraken/# 1";
  assert.deepEqual(scene.brokers.calls, [
    ...["open broker", subscribe, "abandon", "open broker", subscribe],
  ]);
  assert.match(scene.lines("INFO").at(-1) ?? "", /\(MQTT 5, session resumed\)/);
  await scene.end();
});

Deno.test("the next broker of the list is used, and each skipped one is logged once", async () => {
  using scene = new SubscriberScene({ config: { endpoints: ENDPOINTS } });
  refuse(scene, "one", "two");
  const reconnect = async (): Promise<void> => {
    await scene.time.pass(60_000);
    scene.brokers.last.end("gone");
    await scene.time.pass(100);
  };
  await scene.start();
  await reconnect();
  await reconnect();
  assert.deepEqual(scene.brokers.connections.map(({ endpoint }) => endpoint.host), [
    ...["three", "three", "three"],
  ]);
  assert.deepEqual(scene.lines("WARNING").filter((line) => line.includes("next one")), [
    "WARNING  MQTT broker 'one:1883': one refuses. Using the next one.",
    "WARNING  MQTT broker 'two:1883': two refuses. Using the next one.",
  ]);
  refuse(scene);
  await reconnect();
  assert.equal(scene.brokers.last.endpoint.host, "one");
  refuse(scene, "one");
  await reconnect();
  assert.match(scene.lines("WARNING").at(-1) ?? "", /'one:1883'.*Using the next one/);
  await scene.end();
});

Deno.test("an outage of all brokers of the list names each reason", async () => {
  using scene = new SubscriberScene({ config: { endpoints: ENDPOINTS.slice(0, 2) } });
  refuse(scene, "one", "two");
  await scene.start();
  assert.deepEqual(scene.lines("ERROR"), [
    "ERROR    MQTT broker 'one:1883' or 'two:1883' is not available: 'one:1883': one refuses; " +
    "'two:1883': two refuses. Retrying until it is.",
  ]);
  await scene.end();
});

Deno.test("a refused subscription is retried after a minute, the others are not", async () => {
  using scene = new SubscriberScene({ config: { filters: ["a/#", "b/#"] } });
  scene.brokers.grant = (filter) => filter === "b/#" ? "not authorized" : 1;
  await scene.start();
  const subscriptions = (): string[] =>
    scene.brokers.calls.filter((call) => call.startsWith("subscribe"));
  assert.match(scene.lines("ERROR").join(), /'b\/#' was refused: not authorized/);
  await scene.time.pass(59_999);
  assert.deepEqual(subscriptions(), ["subscribe a/# b/# 1"]);
  await scene.time.pass(1);
  scene.brokers.grant = () => 1;
  await scene.time.pass(120_000);
  assert.deepEqual(subscriptions(), ["subscribe a/# b/# 1", "subscribe b/# 1", "subscribe b/# 1"]);
  assert.equal(scene.lines("ERROR").length, 1);
  assert.match(scene.lines("INFO").at(-1) ?? "", /'b\/#' was granted/);
  await scene.end();
});

Deno.test("the end of a connection ends the wait for a refused subscription", async () => {
  using scene = new SubscriberScene();
  scene.brokers.grant = () => "not authorized";
  await scene.start();
  scene.brokers.last.end("gone");
  await scene.time.pass(1_000);
  assert.equal(scene.brokers.connections.length, 2);
  await scene.end();
});

Deno.test("an abort ends the wait for a refused subscription", async () => {
  using scene = new SubscriberScene();
  scene.brokers.grant = () => "not authorized";
  await scene.start();
  await scene.stop();
  await scene.time.pass(120_000);
  assert.deepEqual(scene.brokers.calls, ["open broker", "subscribe kraken/# 1"]);
  await scene.end();
});

Deno.test("a connection that has ended before the abort is not disconnected", async () => {
  using scene = new SubscriberScene();
  await scene.start();
  scene.brokers.last.end("gone");
  await scene.time.pass(0);
  await scene.end();
  assert.ok(!scene.brokers.calls.includes("disconnect"));
});

Deno.test("an abort leaves the connection open until it is disconnected", async () => {
  using scene = new SubscriberScene();
  await scene.start();
  await scene.stop();
  assert.deepEqual(scene.brokers.calls, ["open broker", "subscribe kraken/# 1"]);
  await scene.subscriber.disconnect();
  assert.equal(scene.brokers.calls.at(-1), "disconnect");
  assert.equal(scene.time.pending, 0);
});

Deno.test("an abort ends an attempt to connect, and logs no outage", async () => {
  using scene = new SubscriberScene();
  scene.brokers.onOpen = ({ signal }) =>
    new Promise((_, reject) =>
      signal.addEventListener("abort", () => reject(new Error("canceled")))
    );
  await scene.start();
  await scene.end();
  assert.deepEqual([scene.lines("ERROR"), scene.brokers.connections.length], [[], 0]);
});

Deno.test("an abort ends the wait for the next attempt", async () => {
  using scene = new SubscriberScene();
  refuse(scene, "broker");
  await scene.start();
  await scene.time.pass(60_000);
  await scene.end();
  assert.equal(scene.brokers.connections.length, 0);
});
