/** Subscriptions of a session that are no longer configured. */
import assert from "node:assert/strict";
import type { MqttConfig, ProtocolVersion } from "../../../lib/config/mqtt.ts";
import { StaleSubscriptions } from "../../../lib/mqtt/stale_subscriptions.ts";
import { FakeBrokers, type FakeConnection, mqttConfig } from "../../fakes/fake_connections.ts";
import { settle } from "../../fakes/fake_time.ts";
import { captureLog, withoutTime } from "../../support/captured_log.ts";

interface Scene {
  readonly stale: StaleSubscriptions;
  readonly brokers: FakeBrokers;
  readonly lines: () => string[];
  readonly connect: () => Promise<FakeConnection>;
  /** The filters of each UNSUBSCRIBE. */
  readonly unsubscribed: () => string[][];
}

interface SceneOptions {
  readonly config?: Partial<MqttConfig>;
  /** The configured filters in the form in which they are subscribed to. */
  readonly filters?: readonly string[];
  /** The filters of the store; without them there is no store. */
  readonly stored?: readonly string[];
  readonly protocolVersion?: ProtocolVersion;
}

function createScene(
  { config = {}, filters = ["kraken/#"], stored, protocolVersion = 5 }: SceneOptions = {},
): Scene {
  const lines = captureLog();
  const brokers = new FakeBrokers();
  const mqtt = mqttConfig({ ...config, protocolVersion });
  const store = stored && brokers.recordingStore(stored);
  const options = { endpoint: mqtt.endpoints[0], protocolVersion };
  return {
    stale: new StaleSubscriptions(mqtt, { filters, store }),
    brokers,
    lines: () => lines.map(withoutTime),
    connect: () => brokers.open(options as Parameters<typeof brokers.open>[0]),
    unsubscribed: () =>
      brokers.calls.filter((call) => call.startsWith("unsubscribe "))
        .map((call) => call.split(" ").slice(1)),
  };
}

Deno.test("recorded filters that are no longer configured are unsubscribed and forgotten", async () => {
  const { stale, brokers, connect, lines } = createScene({ stored: ["old/#", "kraken/#", "x"] });
  brokers.stale = ["old/#"];
  const connection = await connect();
  stale.beforeSubscribing();
  await stale.unsubscribe(connection);
  assert.deepEqual(brokers.calls.slice(1), [
    "add kraken/#",
    "unsubscribe old/# x",
    "keepOnly kraken/#",
  ]);
  assert.deepEqual(lines(), ["INFO     Unsubscribed from 'old/#': no longer configured."]);
});

Deno.test("nothing is unsubscribed if every recorded filter is configured", async () => {
  const { stale, brokers, connect } = createScene({ stored: ["kraken/#"] });
  await stale.unsubscribe(await connect());
  assert.deepEqual(brokers.calls, ["open broker"]);
});

Deno.test("a connection that ends during the UNSUBSCRIBE leaves the record as it was", async () => {
  const { stale, brokers, connect } = createScene({ stored: ["old/#"] });
  const connection = await connect();
  connection.end("gone");
  await assert.rejects(stale.unsubscribe(connection), /gone/);
  assert.ok(!brokers.calls.some((call) => call.startsWith("keepOnly")));
});

Deno.test("known filters are unsubscribed on each connection: brokers have their own sessions", async () => {
  const { stale, connect, unsubscribed } = createScene({ stored: ["old/#"] });
  await stale.unsubscribe(await connect());
  stale.reset();
  await stale.unsubscribe(await connect());
  assert.deepEqual(unsubscribed(), [["old/#"], ["old/#"]]);
});

Deno.test("the unshared filters of a session that is older than its group are unsubscribed", async () => {
  const config = { sharedGroup: "g", filters: ["a/#"] };
  const { stale, connect, unsubscribed } = createScene({ config, filters: ["$share/g/a/#"] });
  await stale.unsubscribe(await connect());
  assert.deepEqual(unsubscribed(), [["a/#"]]);
});

Deno.test("without a client id no session can be older than its group", async () => {
  const config = { sharedGroup: "g", filters: ["a/#"], clientId: undefined };
  const { stale, connect, unsubscribed } = createScene({ config, filters: ["$share/g/a/#"] });
  await stale.unsubscribe(await connect());
  assert.deepEqual(unsubscribed(), []);
});

Deno.test("the filter of a message that no configured filter matches is unsubscribed", async () => {
  const { stale, brokers, connect, unsubscribed, lines } = createScene();
  brokers.stale = ["other/+"];
  const connection = await connect();
  stale.received("kraken/1", connection);
  stale.received("other/x", connection);
  stale.received("other/x", connection);
  await settle();
  assert.deepEqual(unsubscribed().map((filters) => filters.toSorted()), [
    [
      "#",
      "+/#",
      "+/+",
      "+/+/#",
      "+/x",
      "+/x/#",
      "other/#",
      "other/+",
      "other/+/#",
      "other/x",
      "other/x/#",
    ],
  ]);
  assert.deepEqual(lines(), ["INFO     Unsubscribed from 'other/+': no longer configured."]);
});

Deno.test("with a shared group the shared forms are unsubscribed, too", async () => {
  const { stale, brokers, connect, lines } = createScene({
    ...{ config: { sharedGroup: "g" }, filters: ["$share/g/kraken/#"] },
  });
  brokers.stale = ["$share/g/other/#"];
  const connection = await connect();
  stale.received("kraken/1", connection);
  stale.received("other/x", connection);
  await settle();
  assert.deepEqual(lines(), [
    "INFO     Unsubscribed from '$share/g/other/#': no longer configured.",
  ]);
});

Deno.test("a message that arrives before the connection is known is dealt with later", async () => {
  const { stale, brokers, connect, unsubscribed } = createScene();
  stale.received("other", undefined);
  await settle();
  assert.deepEqual(brokers.calls, []);
  await stale.unsubscribe(await connect());
  assert.deepEqual(unsubscribed().map((filters) => filters.toSorted()), [
    ["#", "+", "+/#", "other", "other/#"],
  ]);
});

Deno.test("late messages of a known stale filter cause no other UNSUBSCRIBE", async () => {
  const { stale, connect, unsubscribed } = createScene({ stored: ["old/#"] });
  const connection = await connect();
  stale.received("old/x", connection);
  await settle();
  assert.deepEqual(unsubscribed(), []);
});

Deno.test("no filter is unsubscribed twice on a connection, but again on the next", async () => {
  const { stale, connect, unsubscribed } = createScene();
  const first = await connect();
  stale.received("b", first);
  stale.received("c", first);
  await settle();
  const [, second = []] = unsubscribed();
  assert.deepEqual(second.toSorted(), ["c", "c/#"]);
  stale.reset();
  stale.received("b", await connect());
  await settle();
  assert.equal(unsubscribed()[2]?.length, 5);
});

Deno.test("a subscription that cannot be determined is warned of once", async () => {
  const { stale, connect, lines } = createScene();
  const connection = await connect();
  stale.received("other/x", connection);
  stale.received("another/x", connection);
  await settle();
  assert.match(
    lines().join("\n"),
    /^WARNING +Messages arrive on 'other\/x', which MQTT_TOPIC does/,
  );
  assert.equal(lines().length, 1);
});

Deno.test("with MQTT 3.1.1 the topic is logged in place of the filter, once a connection", async () => {
  const { stale, connect, lines } = createScene({ protocolVersion: 4 });
  const connection = await connect();
  stale.received("other/x", connection);
  stale.received("another/x", connection);
  await settle();
  assert.deepEqual(lines(), [
    "INFO     Unsubscribed from the filter that delivered 'other/x': no longer configured.",
  ]);
  stale.reset();
  stale.received("other/x", await connect());
  await settle();
  assert.equal(lines().length, 2);
});

Deno.test("a connection that ends during the UNSUBSCRIBE of a topic is a DEBUG line", async () => {
  const { stale, connect, lines } = createScene();
  const connection = await connect();
  connection.end("gone");
  stale.received("other/x", connection);
  await settle();
  assert.deepEqual(lines(), ["DEBUG    Cannot unsubscribe: gone."]);
});
