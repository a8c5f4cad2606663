/** The subscriber: messages in flight across connections, takeovers, lost sessions, the record. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Delivery } from "../../../lib/message/delivery.ts";
import type { FakeEnd } from "../../fakes/fake_connections.ts";
import { SubscriberScene } from "../../fakes/subscriber_scene.ts";

/** Ends the connection, and waits for the next one. */
async function reconnect(scene: SubscriberScene, end: FakeEnd = {}): Promise<void> {
  const count = scene.brokers.connections.length;
  scene.brokers.last.end("the broker closed the connection", end);
  for (let second = 0; scene.brokers.connections.length === count; second++) {
    assert.ok(second < 120, "no other connection within two minutes");
    await scene.time.pass(1_000);
  }
}

Deno.test("a delivery is registered for its acknowledgement before it is passed on", async () => {
  using scene = new SubscriberScene();
  await scene.start();
  const connection = scene.brokers.last;
  scene.onDelivery = (delivery) => {
    assert.ok(connection.registered.includes(delivery));
    delivery.finish();
  };
  const delivery = connection.deliver("kraken/1");
  assert.deepEqual([scene.received, connection.acknowledged], [[delivery], [delivery]]);
  await scene.end();
});

Deno.test("messages that arrive before the connection is open are accepted and passed on", async () => {
  using scene = new SubscriberScene();
  scene.brokers.limits = { sessionPresent: true };
  scene.brokers.stale = ["other/#"];
  const accepted: Delivery[] = [];
  const deliveries = ["kraken/1", "other/x"].map((topic) =>
    new Delivery(topic, Buffer.from(topic), { qos: 1 })
  );
  scene.brokers.onOpen = ({ onMessage }) => {
    for (const delivery of deliveries) {
      onMessage(delivery, (registered) => accepted.push(registered));
    }
  };
  await scene.start();
  assert.deepEqual([accepted, scene.received], [deliveries, deliveries]);
  assert.match(scene.brokers.calls.slice(1).join("\n"), /^subscribe .*\nunsubscribe # .*other\/#/);
  await scene.end();
});

Deno.test("a message that is redelivered while in flight is acknowledged, not passed on", async () => {
  using scene = new SubscriberScene();
  await scene.start();
  const first = scene.brokers.last.deliver("kraken/1", { payload: "a" });
  const old = scene.brokers.last;
  await reconnect(scene);
  const again = scene.brokers.last.deliver("kraken/1", { payload: "a" });
  assert.deepEqual([scene.received, scene.redelivered], [[first], 1]);
  assert.deepEqual(scene.brokers.last.acknowledged, [], "not before the message is safe");
  first.finish();
  assert.deepEqual(scene.brokers.last.acknowledged, [first]);
  assert.deepEqual([old.acknowledged, again.state], [[], "in flight"]);
  const later = scene.brokers.last.deliver("kraken/1", { payload: "a" });
  assert.deepEqual([scene.received, scene.redelivered], [[first, later], 1]);
  await scene.end();
});

Deno.test("a message stays recognizable over several reconnections", async () => {
  using scene = new SubscriberScene();
  await scene.start();
  const first = scene.brokers.last.deliver("kraken/1");
  for (let round = 1; round <= 3; round++) {
    await reconnect(scene);
    scene.brokers.last.deliver("kraken/1");
    assert.deepEqual([scene.received, scene.redelivered], [[first], round]);
  }
  await scene.end();
});

Deno.test("messages in flight of earlier connections count against the room of the next", async () => {
  using scene = new SubscriberScene();
  await scene.start();
  const first = scene.brokers.last.deliver("kraken/1", { payload: "123456" });
  await reconnect(scene);
  const { options } = scene.brokers.last;
  const { count, bytes } = options.earlierInFlight();
  assert.deepEqual([count, bytes], [1, 6]);
  first.markSafe();
  assert.equal(options.earlierInFlight().count, 0);
  assert.equal(scene.brokers.last.resumed, 1);
  await scene.end();
});

Deno.test("after stopIntake messages stay with the broker", async () => {
  using scene = new SubscriberScene();
  await scene.start();
  const before = scene.brokers.last.deliver("kraken/1");
  scene.subscriber.stopIntake();
  scene.brokers.last.deliver("kraken/2");
  assert.deepEqual([scene.received, scene.brokers.last.registered], [[before], [before]]);
  before.finish();
  assert.deepEqual(scene.brokers.last.acknowledged, [before]);
  await scene.end();
});

Deno.test("after a takeover the next connection is logged only when it has lasted", async () => {
  using scene = new SubscriberScene();
  scene.brokers.limits = { sessionPresent: true };
  await scene.start();
  await reconnect(scene, { takenOver: true });
  const info = (): string[] => scene.lines("INFO").slice(1);
  await scene.time.pass(118_000);
  assert.deepEqual([info(), scene.subscriber.connectionStatus.connected], [[], true]);
  await scene.time.pass(2_000);
  assert.match(info().join("\n"), /^INFO .* is available again .*\nINFO +Connected to MQTT broker/);
  await reconnect(scene);
  assert.equal(info().length, 4, "a connection after a long one is logged at once");
  await scene.end();
});

Deno.test("a connection that ends before it was confirmed is not logged", async () => {
  using scene = new SubscriberScene();
  await scene.start();
  for (let takeover = 0; takeover < 4; takeover++) await reconnect(scene, { takenOver: true });
  assert.deepEqual([scene.lines("INFO").length, scene.lines("ERROR").length], [1, 1]);
  await scene.end();
});

Deno.test("another client is suspected after connections that end without a reason", async () => {
  using scene = new SubscriberScene();
  scene.brokers.limits = { sessionPresent: true };
  await scene.start();
  const warnings = (): string[] => scene.lines("WARNING");
  for (let end = 0; end < 4; end++) await reconnect(scene, { unexplained: true });
  assert.deepEqual(warnings(), []);
  for (let end = 0; end < 3; end++) await reconnect(scene, { unexplained: true });
  assert.match(warnings().join("\n"), /Another client may be using .* MQTT_CLIENT_ID 'logger'\.$/);
  assert.equal(warnings().length, 1);
  await scene.end();
});

Deno.test("a connection without an earlier session cannot have been taken over", async () => {
  using scene = new SubscriberScene({ config: { clientId: undefined } });
  await scene.start();
  for (let end = 0; end < 8; end++) await reconnect(scene, { unexplained: true });
  assert.deepEqual(scene.lines("WARNING"), []);
  await scene.end();
});

Deno.test("a session that the broker has lost is warned of once", async () => {
  using scene = new SubscriberScene();
  await scene.start();
  await reconnect(scene);
  scene.brokers.limits = { sessionPresent: true };
  await reconnect(scene);
  assert.match(
    scene.lines("WARNING").join("\n"),
    /lost the session of MQTT_CLIENT_ID 'logger'.* since \d\d:\d\d:\d\d \(0\.\d s\) were not/,
  );
  assert.equal(scene.lines("WARNING").length, 1);
  await scene.end();
});

Deno.test("filters are recorded before they are subscribed to, others removed at the end", async () => {
  using scene = new SubscriberScene({ stored: ["kraken/#", "old/#"] });
  scene.brokers.limits = { sessionPresent: true };
  scene.brokers.stale = ["old/#"];
  await scene.start();
  assert.deepEqual(scene.brokers.calls, [
    "open broker",
    "add kraken/#",
    "subscribe kraken/# 1",
    "unsubscribe old/#",
    "keepOnly kraken/#",
  ]);
  assert.match(scene.lines("INFO").at(-1) ?? "", /Unsubscribed from 'old\/#'/);
  await scene.end();
});

Deno.test("a recorded filter stays recorded until the configured ones are granted", async () => {
  using scene = new SubscriberScene({ stored: ["old/#"] });
  scene.brokers.grant = () => "not authorized";
  await scene.start();
  await reconnect(scene);
  assert.deepEqual(scene.store?.filters(), ["old/#", "kraken/#"]);
  assert.ok(!scene.brokers.calls.some((call) => /^(unsubscribe|keepOnly)/.test(call)));
  await scene.end();
});

Deno.test("the session of an earlier run that is gone is warned of", async () => {
  using scene = new SubscriberScene({ stored: ["kraken/#"] });
  await scene.start();
  assert.match(
    scene.lines("WARNING").join(),
    /published since the last run of the logger were not/,
  );
  await scene.end();
});

Deno.test("a message that no configured filter matches ends the filter that brought it", async () => {
  using scene = new SubscriberScene();
  scene.brokers.stale = ["other/+"];
  await scene.start();
  scene.brokers.last.deliver("other/x");
  await scene.time.pass(0);
  assert.equal(scene.received.length, 1, "the message is passed on");
  const unsubscribed = (): number =>
    scene.lines("INFO").filter((line) => line.includes("Unsubscribed from 'other/+'")).length;
  assert.equal(unsubscribed(), 1);
  // The next broker of a list has a session, too.
  await reconnect(scene);
  scene.brokers.last.deliver("other/x", { payload: "another one" });
  await scene.time.pass(0);
  assert.equal(unsubscribed(), 2);
  await scene.end();
});
