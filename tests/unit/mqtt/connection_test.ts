/** One connection to a broker, against a broker that misbehaves on demand. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { IPublishPacket, Packet } from "mqtt-packet";
import { DEFAULT_TUNING } from "../../../lib/config/tuning.ts";
import { type Delivery, RECEIVE_MAXIMUM } from "../../../lib/message/delivery.ts";
import { SESSION_EXPIRY_SECONDS } from "../../../lib/mqtt/broker_limits.ts";
import { MqttConnection, type MqttConnectionOptions } from "../../../lib/mqtt/connection.ts";
import { MqttRefusedError } from "../../../lib/mqtt/errors.ts";
import type { InFlight } from "../../../lib/mqtt/flow_control.ts";
import { FakeBroker } from "../../fakes/fake_broker.ts";
import { delay, waitUntil, within } from "../../support/poll.ts";

/** A connection and its deliveries. */
class Client implements AsyncDisposable {
  readonly deliveries: Delivery[] = [];
  connection!: MqttConnection;

  static async open(
    endpoint: { host: string; port: number },
    options: Partial<MqttConnectionOptions> = {},
  ): Promise<Client> {
    const client = new Client();
    client.connection = await MqttConnection.open({
      endpoint,
      tls: undefined,
      protocolVersion: 5,
      clientId: "logger",
      persistent: true,
      user: undefined,
      password: undefined,
      earlierInFlight: () => ({ count: 0, bytes: 0 }),
      onMessage: (delivery, acknowledge) => {
        acknowledge(delivery);
        client.deliveries.push(delivery);
      },
      tuning: DEFAULT_TUNING,
      signal: new AbortController().signal,
      ...options,
    });
    return client;
  }

  async waitForCount(count: number): Promise<void> {
    await waitUntil(() => this.deliveries.length >= count, { what: `${count} deliveries` });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.connection.destroy("the test is over");
    await this.connection.closed;
  }
}

function publish(messageId: number, qos: 1 | 2 = 2, payload = `${messageId}`): IPublishPacket {
  return { cmd: "publish", topic: "t", payload, qos, messageId, dup: false, retain: false };
}

Deno.test("a connection requests a session, and limits what the broker may send", async () => {
  await using broker = await FakeBroker.start();
  await using _ = await Client.open(broker, { user: "u", password: "p" });
  const [connect] = broker.of("connect");
  assert.equal(connect?.clientId, "logger");
  assert.equal(connect?.clean, false);
  assert.equal(connect?.username, "u");
  assert.equal(connect?.password?.toString(), "p");
  assert.equal(connect?.properties?.sessionExpiryInterval, SESSION_EXPIRY_SECONDS);
  assert.equal(connect?.properties?.receiveMaximum, RECEIVE_MAXIMUM);
  await using other = await Client.open(broker, { persistent: false, protocolVersion: 4 });
  const [, clean] = broker.of("connect");
  assert.equal(clean?.clean, true);
  assert.equal(clean?.protocolVersion, 4);
  assert.equal(other.connection.limits.sessionExpirySeconds, undefined);
});

Deno.test("messages in one segment with the CONNACK are delivered, in their order", async () => {
  const behindConnack = [publish(1), publish(2, 1), publish(3)];
  await using broker = await FakeBroker.start({ connack: { sessionPresent: true }, behindConnack });
  await using client = await Client.open(broker);
  assert.equal(client.connection.limits.sessionPresent, true);
  await client.waitForCount(3);
  assert.deepEqual(client.deliveries.map(({ payload }) => payload.toString()), ["1", "2", "3"]);
});

Deno.test("a message is acknowledged only after it has become safe", async () => {
  for (const version of [4, 5] as const) {
    await using broker = await FakeBroker.start();
    await using client = await Client.open(broker, { protocolVersion: version });
    broker.send(publish(7, 1), publish(8, 2));
    await client.waitForCount(2);
    // An early acknowledgement would have arrived before the answer to this request.
    const subscribed = client.connection.subscribe(["x"], 2);
    await broker.waitFor("subscribe");
    assert.deepEqual([broker.of("puback").length, broker.of("pubrec").length], [0, 0]);
    client.deliveries.forEach((delivery) => delivery.markSafe());
    await broker.waitFor("puback");
    await broker.waitFor("pubrec");
    assert.equal(broker.of("puback")[0]?.messageId, 7);
    assert.equal(broker.of("pubrec")[0]?.messageId, 8);
    broker.send({ cmd: "pubrel", messageId: 8 });
    await broker.waitFor("pubcomp");
    const { messageId = 0 } = broker.of("subscribe")[0] ?? {};
    broker.send({ cmd: "suback", messageId, granted: [1] });
    assert.deepEqual(await subscribed, [{ filter: "x", granted: 1 }]);
  }
});

Deno.test("a message that is not accepted stays with the broker", async () => {
  await using broker = await FakeBroker.start();
  await using client = await Client.open(broker, { onMessage: () => {} });
  broker.send(publish(1, 1), publish(2, 2));
  await client.connection.disconnect();
  await broker.waitFor("disconnect");
  assert.deepEqual([broker.of("puback").length, broker.of("pubrec").length], [0, 0]);
});

Deno.test("the error of a refused connection describes the reason, in both versions", async () => {
  const cases: [4 | 5, number, RegExp, boolean][] = [
    [4, 1, /does not speak this version of MQTT/, true],
    [4, 2, /refuses the client id/, false],
    [4, 4, /^wrong user name or password \(check MQTT_CLIENT_USER and /, false],
    [4, 5, /not authorized/, false],
    [5, 0x84, /does not speak this version of MQTT/, true],
    [5, 0x86, /^wrong user name or password \(check MQTT_CLIENT_USER and /, false],
    [5, 0x87, /not authorized/, false],
    [5, 0x8a, /banned/, false],
  ];
  for (const [protocolVersion, code, words, versionRefused] of cases) {
    const connack = { returnCode: code, reasonCode: code };
    await using broker = await FakeBroker.start({ connack });
    await assert.rejects(Client.open(broker, { protocolVersion }), (error) => {
      assert.ok(error instanceof MqttRefusedError);
      assert.match(error.message, words);
      assert.equal(error.versionRefused, versionRefused);
      return true;
    });
  }
});

Deno.test("a refused subscription has the reason in words, a granted one its QoS", async () => {
  await using broker = await FakeBroker.start();
  await using client = await Client.open(broker);
  const answer = client.connection.subscribe(["a", "b", "c"], 2);
  await broker.waitFor("subscribe");
  const [packet] = broker.of("subscribe");
  assert.deepEqual(packet?.subscriptions.map(({ topic, qos, rh }) => [topic, qos, rh]), [
    ["a", 2, 1],
    ["b", 2, 1],
    ["c", 2, 1],
  ]);
  broker.send({ cmd: "suback", messageId: packet?.messageId ?? 0, granted: [2, 0x87, 0] });
  const [first, second, third] = await answer;
  assert.deepEqual(first, { filter: "a", granted: 2 });
  assert.match(String(second?.granted), /not authorized/);
  assert.deepEqual(third, { filter: "c", granted: 0 });
  const unsubscribed = client.connection.unsubscribe(["a", "b"]);
  await broker.waitFor("unsubscribe");
  const { messageId = 0 } = broker.of("unsubscribe")[0] ?? {};
  broker.send({ cmd: "unsuback", messageId, granted: [0x11, 0] } as Packet);
  assert.deepEqual(await unsubscribed, ["b"]);
});

Deno.test("the broker's keepalive is respected, and a silent broker is detected", async () => {
  const connack = { properties: { serverKeepAlive: 1 } };
  await using broker = await FakeBroker.start({ connack });
  await using client = await Client.open(broker);
  await broker.waitFor("pingreq", 3);
  await using silent = await FakeBroker.start({ connack, answersPings: false });
  await using other = await Client.open(silent);
  const reason = await within(other.connection.closed, 4_000);
  assert.match(reason ?? "still open", /no longer answers/);
  assert.equal(
    await within(client.connection.closed, 1),
    undefined,
    "the other connection stays open",
  );
});

/** Intervals that elapse only when the test says so; replaces `setInterval`. */
class FakeIntervals implements Disposable {
  readonly #real = globalThis.setInterval;
  readonly #intervals: { readonly everyMs: number; readonly callback: () => void }[] = [];
  #nowMs = 0;

  constructor() {
    globalThis.setInterval = ((callback: () => void, everyMs: number): number => {
      this.#intervals.push({ everyMs, callback });
      // Not the number of a real timer, so that clearing it does nothing.
      return 0;
    }) as unknown as typeof setInterval;
  }

  /** Lets time pass, and calls the callback of every interval that elapses. */
  pass(durationMs: number): void {
    const endMs = this.#nowMs + durationMs;
    for (const { everyMs, callback } of this.#intervals) {
      const times = Math.floor(endMs / everyMs) - Math.floor(this.#nowMs / everyMs);
      for (let time = 0; time < times; time++) callback();
    }
    this.#nowMs = endMs;
  }

  [Symbol.dispose](): void {
    globalThis.setInterval = this.#real;
  }
}

Deno.test("a broker that requests a keepalive of an hour is pinged every 15 s", async () => {
  await using broker = await FakeBroker.start({
    connack: { properties: { serverKeepAlive: 3600 } },
  });
  using intervals = new FakeIntervals();
  await using _ = await Client.open(broker);
  for (let pings = 1; pings <= 3; pings++) {
    intervals.pass(15_000);
    await broker.waitFor("pingreq", pings);
    assert.equal(broker.of("pingreq").length, pings);
  }
});

Deno.test("an endless backlog is read only while there is room, and pings continue", async () => {
  const total = 40_000;
  // With a shorter keepalive, a busy machine would be too slow.
  await using broker = await FakeBroker.start({ connack: { properties: { serverKeepAlive: 4 } } });
  await using client = await Client.open(broker);
  const payload = "x".repeat(100);
  for (let id = 1; id <= total; id += 1000) {
    broker.send(...Array.from({ length: 1000 }, (_, index) => publish(id + index, 1, payload)));
  }
  await client.waitForCount(RECEIVE_MAXIMUM);
  await broker.waitFor("pingreq", 2);
  const held = client.deliveries.length;
  assert.ok(held > RECEIVE_MAXIMUM && held < total - 10_000, `${held} taken in`);
  let settled = 0;
  await waitUntil(() => {
    for (; settled < client.deliveries.length; settled++) client.deliveries[settled]?.markSafe();
    return settled === total;
  });
  await broker.waitFor("puback", total);
  const ids = broker.of("puback").map(({ messageId }) => messageId);
  assert.ok(ids.every((id, index) => id === index + 1), "acknowledged in order");
});

for (
  const { what, held, less, little } of [
    {
      what: "messages",
      held: { count: RECEIVE_MAXIMUM + 1, bytes: 0 },
      less: { count: RECEIVE_MAXIMUM - 1, bytes: 0 },
      little: { count: 100, bytes: 0 },
    },
    {
      what: "bytes",
      held: { count: 1, bytes: 65 * 2 ** 20 },
      less: { count: 1, bytes: 63 * 2 ** 20 },
      little: { count: 1, bytes: 2 ** 20 },
    },
  ]
) {
  Deno.test(`messages in flight of earlier connections take up room, too, in ${what}`, async () => {
    await using broker = await FakeBroker.start({
      connack: { sessionPresent: true, properties: { serverKeepAlive: 1 } },
      behindConnack: [publish(1)],
    });
    let before: InFlight = held;
    await using client = await Client.open(broker, { earlierInFlight: () => before });
    await client.waitForCount(1);
    broker.send(publish(2), publish(3));
    // Without the limit, they would have arrived by now.
    await broker.waitFor("pingreq", 2);
    assert.equal(client.deliveries.length, 1);
    // A little room is not enough to resume reading.
    before = less;
    client.connection.resumeWithRoom();
    await broker.waitFor("pingreq", 4);
    assert.equal(client.deliveries.length, 1);
    before = little;
    client.connection.resumeWithRoom();
    await client.waitForCount(3);
    assert.deepEqual(client.deliveries.map(({ payload }) => payload.toString()), ["1", "2", "3"]);
    // From now on, everything is read.
    broker.send(publish(4));
    await client.waitForCount(4);
  });
}

Deno.test("bytes that are not MQTT end the connection with that reason", async () => {
  const http = Buffer.from("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
  for (const greeting of [http, Buffer.alloc(200, 0xff), Buffer.from("SSH-2.0-OpenSSH_9.2\r\n")]) {
    await using broker = await FakeBroker.start({ greeting, connack: null });
    await assert.rejects(
      Client.open(broker),
      /^Error: the broker sent bytes that are not MQTT \(.+\)$/,
    );
  }
});

Deno.test("a broker that does not answer, hangs up or does not listen is an error in words", async () => {
  await using mute = await FakeBroker.start({ connack: null });
  const stop = new AbortController();
  const attempt = assert.rejects(Client.open(mute, { signal: stop.signal }), /given up/);
  await mute.waitFor("connect");
  stop.abort();
  await attempt;
  const hungUp = assert.rejects(Client.open(mute), /the broker closed the connection/);
  await mute.waitFor("connect", 2);
  mute.hangUp();
  await hungUp;
  const { host, port } = mute;
  await mute[Symbol.asyncDispose]();
  await assert.rejects(Client.open({ host, port }), { code: "ECONNREFUSED" });
});

Deno.test("a closed connection has the broker's reason", async () => {
  await using broker = await FakeBroker.start();
  await using client = await Client.open(broker);
  broker.send(publish(1), publish(2));
  await client.waitForCount(2);
  client.deliveries[1]?.markSafe();
  const request = assert.rejects(client.connection.subscribe(["x"], 2), /same client id/);
  broker.send({ cmd: "disconnect", reasonCode: 0x8e });
  assert.equal(
    await client.connection.closed,
    "another client has connected with the same client id",
  );
  await request;
  assert.deepEqual(client.connection.abandon(), [client.deliveries[0]]);
  await using other = await Client.open(broker);
  broker.hangUp();
  assert.equal(await other.connection.closed, "the broker closed the connection");
});

Deno.test("disconnect completes the QoS 2 handshakes before it sends the DISCONNECT", async () => {
  await using broker = await FakeBroker.start();
  await using client = await Client.open(broker);
  broker.send(publish(1), publish(2, 1));
  await client.waitForCount(2);
  client.deliveries.forEach((delivery) => delivery.markSafe());
  await broker.waitFor("pubrec");
  const goodbye = client.connection.disconnect();
  await delay(50);
  assert.equal(broker.of("disconnect").length, 0, "a PUBREL is still missing");
  broker.send({ cmd: "pubrel", messageId: 1 });
  await goodbye;
  await broker.waitFor("disconnect");
  const kinds = broker.received.map(({ cmd }) => cmd);
  assert.deepEqual(kinds, ["connect", "pubrec", "puback", "pubcomp", "disconnect"]);
  assert.equal(await client.connection.closed, "disconnected");
});
