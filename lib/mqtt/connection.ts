/**
 * One connection to a broker: CONNECT, SUBSCRIBE, incoming messages, acknowledgements, DISCONNECT.
 *
 * The only module that imports the MQTT library, of which it uses the codec (`mqtt-packet`). The
 * client above that codec (MQTT.js) acknowledges a message when it has passed it to the
 * application. Here the acknowledgement is the promise that the reading is safe: a PUBLISH becomes
 * a `Delivery`, and its PUBACK or PUBREC leaves when the delivery is safe. No packet id outlives
 * the connection.
 *
 * Messages in flight are bounded by the receive maximum (MQTT 5) or by the broker's own limit (MQTT
 * 3.1.1). Mosquitto 2.0 keeps to neither when a client with a backlog returns; the socket is not
 * read then until there is room again. Pings are sent all the while, so that the broker does not
 * end the connection.
 */

import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import {
  generate,
  type IConnackPacket,
  type IPublishPacket,
  type Packet,
  parser as createParser,
} from "mqtt-packet";
import { onAbort } from "../common/abort.ts";
import type { Endpoint } from "../common/endpoint.ts";
import { describeError } from "../common/error_text.ts";
import type { Certificates } from "../config/certificate_files.ts";
import type { ProtocolVersion } from "../config/mqtt.ts";
import type { Tuning } from "../config/tuning.ts";
import { Delivery, type QoS, RECEIVE_MAXIMUM } from "../message/delivery.ts";
import { AcknowledgementQueue } from "./acknowledgement_queue.ts";
import { type BrokerLimits, limitsOf, SESSION_EXPIRY_SECONDS } from "./broker_limits.ts";
import { MqttNoAnswerError, MqttRefusedError } from "./errors.ts";
import { FlowControl, type InFlight } from "./flow_control.ts";
import { describeReason } from "./reason_codes.ts";
import { openSocket } from "./socket.ts";

/** Time for the last acknowledgements to be sent, and then for the DISCONNECT. */
const GOODBYE_TIMEOUT_MS = 5_000;

/** Reason code of a DISCONNECT (MQTT 5 section 3.14.2.1). */
const SESSION_TAKEN_OVER = 0x8e;

/** A broker that speaks MQTT 5 sends no larger packets; they could exhaust the memory. */
const MAXIMUM_PACKET_BYTES = 16 * 1024 * 1024;

/**
 * Handles a message, in the order of arrival; must not throw. To accept the message, it first calls
 * `acknowledge` with the delivery whose safety is to be acknowledged (the given one, or an earlier
 * one that this message repeats), then passes the delivery on. If it does not call `acknowledge`,
 * the message stays with the broker.
 */
export type MessageHandler = (
  delivery: Delivery,
  acknowledge: (delivery: Delivery) => void,
) => void;

export interface MqttConnectionOptions {
  readonly endpoint: Endpoint;
  /** Undefined: plain TCP. */
  readonly tls: Certificates | undefined;
  readonly protocolVersion: ProtocolVersion;
  readonly clientId: string;
  /** Whether the broker is to keep subscriptions and messages while this client is not connected. */
  readonly persistent: boolean;
  readonly user: string | undefined;
  readonly password: string | undefined;
  readonly onMessage: MessageHandler;
  /** Messages in flight of earlier connections, which take up room as well. */
  readonly earlierInFlight: () => InFlight;
  readonly tuning: Pick<Tuning, "mqttConnectTimeoutMs" | "mqttKeepaliveSeconds">;
  /** Aborting it cancels the attempt to connect. */
  readonly signal: AbortSignal;
}

/** The broker's answer to one filter of a SUBSCRIBE. */
export interface Subscription {
  readonly filter: string;
  /** The QoS granted, or the reason of the refusal in words. */
  readonly granted: QoS | string;
}

/** An open connection. The caller that opened it ends it with `disconnect` or by disposal. */
export class MqttConnection implements AsyncDisposable {
  readonly endpoint: Endpoint;
  readonly protocolVersion: ProtocolVersion;
  /** Resolves when the connection has ended, to the reason in words. */
  readonly closed: Promise<string>;
  readonly #socket: Socket;
  readonly #onMessage: MessageHandler;
  readonly #flow: FlowControl;
  readonly #acknowledgements = new AcknowledgementQueue(
    (bytes) => this.#write(bytes),
    () => this.resumeWithRoom(),
  );
  readonly #answers = new Map<number, (codes: readonly number[]) => void>();
  readonly #connack = Promise.withResolvers<IConnackPacket>();
  #limits: BrokerLimits | undefined;
  #pings: ReturnType<typeof setInterval> | undefined;
  #nextPacketId = 1;
  #lastReceivedMs = performance.now();
  #closeReason: string | undefined;
  #explained = false;
  #takenOver = false;

  /**
   * Connects and waits for the CONNACK. Messages of a kept session may be delivered before this
   * resolves: a broker sends them right behind the CONNACK.
   *
   * @throws {MqttRefusedError} when the broker refuses the connection.
   * @throws {MqttNoAnswerError} when the broker closes the connection without an answer.
   * @throws {Error} when the broker cannot be reached, does not answer in time or does not speak
   * MQTT.
   */
  static async open(options: MqttConnectionOptions): Promise<MqttConnection> {
    const timeoutMs = options.tuning.mqttConnectTimeoutMs;
    const socket = await openSocket({ ...options, timeoutMs });
    const connection = new MqttConnection(socket, options);
    await connection.#handshake(options);
    return connection;
  }

  private constructor(socket: Socket, options: MqttConnectionOptions) {
    this.#socket = socket;
    this.#onMessage = options.onMessage;
    this.#flow = new FlowControl(socket, () => {
      const { inFlight, inFlightBytes } = this.#acknowledgements;
      const earlier = options.earlierInFlight();
      return { count: inFlight + earlier.count, bytes: inFlightBytes + earlier.bytes };
    });
    this.endpoint = options.endpoint;
    this.protocolVersion = options.protocolVersion;
    const parser = createParser({ protocolVersion: options.protocolVersion });
    parser.on("packet", (packet) => this.#receive(packet));
    parser.on("error", (error) => {
      this.destroy(`the broker sent bytes that are not MQTT (${describeError(error)})`);
    });
    socket.on("data", (bytes: Buffer) => {
      this.#lastReceivedMs = performance.now();
      parser.parse(bytes);
      this.#acknowledgements.flush();
      this.#flow.pauseIfFull();
    });
    this.closed = new Promise((resolve) => {
      socket.on("error", (error) => this.#closeReason ??= describeError(error));
      socket.on("close", () => {
        clearInterval(this.#pings);
        resolve(this.#closeReason ?? "the broker closed the connection");
      });
    });
  }

  async #handshake(options: MqttConnectionOptions): Promise<void> {
    const { mqttConnectTimeoutMs, mqttKeepaliveSeconds } = options.tuning;
    const timer = setTimeout(() => this.destroy("no answer in time"), mqttConnectTimeoutMs);
    using _ = onAbort(options.signal, () => this.destroy("given up"));
    try {
      this.#write(encodeConnect(options));
      const connack = await Promise.race([this.#connack.promise, this.closed]);
      if (typeof connack === "string") {
        throw this.#explained ? new Error(connack) : new MqttNoAnswerError(connack);
      }
      const code = connack.reasonCode ?? connack.returnCode ?? 0;
      if (code !== 0) throw new MqttRefusedError(code);
      this.#limits = limitsOf(connack, options.protocolVersion);
      // A client may ping more often than the broker demands, and notices a dead broker sooner.
      const demanded = connack.properties?.serverKeepAlive || mqttKeepaliveSeconds;
      const intervalMs = Math.min(demanded, mqttKeepaliveSeconds) * 500;
      this.#pings = setInterval(() => this.#ping(intervalMs), intervalMs);
    } catch (error) {
      this.destroy("refused");
      await this.closed;
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  get limits(): BrokerLimits {
    if (this.#limits === undefined) throw new Error("not connected yet");
    return this.#limits;
  }

  /** Whether the broker ended the connection for another client of the same id; MQTT 5 only. */
  get takenOver(): boolean {
    return this.#takenOver;
  }

  /** Whether the connection ended and neither the broker nor this side gave a reason. */
  get endedUnexplained(): boolean {
    return !this.#explained;
  }

  /**
   * Subscribes, and returns the answer to each filter. Retained messages are requested only where
   * the subscription is new to the broker (MQTT 5 section 3.8.3.1; 3.1.1 has no choice).
   *
   * @throws {Error} when the connection ends before the broker answers.
   */
  async subscribe(filters: readonly string[], qos: QoS): Promise<Subscription[]> {
    const codes = await this.#request((messageId) => ({
      cmd: "subscribe",
      messageId,
      subscriptions: filters.map((topic) => ({ topic, qos, nl: false, rap: false, rh: 1 })),
    }));
    return filters.map((filter, index) => {
      const code = codes[index] ?? 0x80;
      return { filter, granted: code <= 2 ? code as QoS : describeReason(code) };
    });
  }

  /**
   * Unsubscribes, and returns the filters that had been subscribed to; none with MQTT 3.1.1, whose
   * UNSUBACK does not say.
   *
   * @throws {Error} when the connection ends before the broker answers.
   */
  async unsubscribe(filters: readonly string[]): Promise<string[]> {
    const codes = await this.#request((messageId) => ({
      cmd: "unsubscribe",
      messageId,
      unsubscriptions: [...filters],
    }));
    return filters.filter((_, index) => codes[index] === 0);
  }

  /**
   * Sends the acknowledgements that are due, completes the QoS 2 handshakes, sends a DISCONNECT,
   * which keeps a persistent session, and closes. From now on the handler must accept no message.
   * Resolves when the connection is closed; a broker that does not keep up has five seconds for
   * each step.
   */
  async disconnect(): Promise<void> {
    this.#flow.resume();
    this.#resumed();
    await this.#untilIdle();
    this.#closeReason ??= "disconnected";
    this.#write(this.#encode({ cmd: "disconnect", reasonCode: 0 }));
    this.#socket.end();
    const timer = setTimeout(() => this.#socket.destroy(), GOODBYE_TIMEOUT_MS);
    await this.closed;
    clearTimeout(timer);
  }

  /** Closes without a DISCONNECT; `reason` is what `closed` resolves to. */
  destroy(reason: string): void {
    this.#explained = true;
    this.#closeReason ??= reason;
    this.#socket.destroy();
  }

  /** Closes without a DISCONNECT, unless the connection has ended already. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.destroy("closed");
    await this.closed;
  }

  /** After the end: returns the messages in flight, which this connection does not acknowledge. */
  abandon(): Delivery[] {
    return this.#acknowledgements.close();
  }

  #receive(packet: Packet): void {
    switch (packet.cmd) {
      case "connack":
        return this.#connack.resolve(packet);
      case "publish":
        return this.#deliver(packet);
      case "pubrel":
        return this.#acknowledgements.release(packet.messageId ?? 0);
      case "suback":
        return this.#answer(packet.messageId, packet.granted as number[]);
      case "unsuback":
        // MQTT 3.1.1 has no codes here, which the library leaves undefined.
        return this.#answer(packet.messageId, (packet.granted as number[] | undefined) ?? []);
      case "disconnect":
        this.#takenOver = packet.reasonCode === SESSION_TAKEN_OVER;
        return this.destroy(describeReason(packet.reasonCode ?? 0));
    }
  }

  #deliver({ topic, payload, qos, messageId }: IPublishPacket): void {
    this.#onMessage(new Delivery(topic, payload as Buffer, { qos }), (delivery) => {
      if (qos > 0) this.#acknowledgements.add(delivery, messageId ?? 0);
    });
  }

  /**
   * Sends a packet and waits for its answer, without a time limit: the answer may stand behind a
   * backlog that is not read because there is no room, and the pings detect a dead broker.
   */
  async #request(createPacket: (messageId: number) => Packet): Promise<readonly number[]> {
    const messageId = this.#nextPacketId++ % 0xffff || 1;
    const answered = Promise.withResolvers<readonly number[]>();
    this.#answers.set(messageId, answered.resolve);
    try {
      this.#write(this.#encode(createPacket(messageId)));
      const codes = await Promise.race([answered.promise, this.closed]);
      if (typeof codes === "string") throw new Error(codes);
      return codes;
    } finally {
      this.#answers.delete(messageId);
    }
  }

  #answer(messageId: number | undefined, codes: readonly number[]): void {
    this.#answers.get(messageId ?? 0)?.(codes);
  }

  async #untilIdle(): Promise<void> {
    const idle = Promise.withResolvers<void>();
    const poll = setInterval(() => this.#acknowledgements.isIdle && idle.resolve(), 10);
    const timer = setTimeout(idle.resolve, GOODBYE_TIMEOUT_MS);
    await Promise.race([idle.promise, this.closed]);
    clearInterval(poll);
    clearTimeout(timer);
  }

  /** Reads the socket again if there is room. Call it when an earlier message has become safe. */
  resumeWithRoom(): void {
    if (this.#flow.resumeWithRoom()) this.#resumed();
  }

  /** The broker was not silent: its bytes were not read. */
  #resumed(): void {
    this.#lastReceivedMs = performance.now();
  }

  /** A broker that has sent nothing for 2.5 intervals, not even a PINGRESP, is dead. */
  #ping(intervalMs: number): void {
    if (!this.#flow.isPaused && performance.now() - this.#lastReceivedMs > 2.5 * intervalMs) {
      this.destroy("the broker no longer answers");
    } else {
      this.#write(this.#encode({ cmd: "pingreq" }));
    }
  }

  #encode(packet: Packet): Buffer {
    return generate(packet, { protocolVersion: this.protocolVersion });
  }

  #write(bytes: Buffer): void {
    if (!this.#socket.destroyed && this.#socket.writable) this.#socket.write(bytes);
  }
}

/** The public side of a connection, which tests replace. */
export type BrokerConnection = Pick<MqttConnection, keyof MqttConnection>;

function encodeConnect(options: MqttConnectionOptions): Buffer {
  const { protocolVersion, clientId, persistent, user, password } = options;
  const packet: Packet = {
    cmd: "connect",
    protocolId: "MQTT",
    protocolVersion,
    clientId,
    clean: !persistent,
    keepalive: options.tuning.mqttKeepaliveSeconds,
    ...(user !== undefined && { username: user }),
    ...(password !== undefined && { password: Buffer.from(password) }),
    ...(protocolVersion === 5 && {
      properties: {
        sessionExpiryInterval: persistent ? SESSION_EXPIRY_SECONDS : 0,
        receiveMaximum: RECEIVE_MAXIMUM,
        maximumPacketSize: MAXIMUM_PACKET_BYTES,
      },
    }),
  };
  return generate(packet, { protocolVersion });
}
