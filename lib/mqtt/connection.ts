/**
 * One connection to a broker: CONNECT, SUBSCRIBE, what it delivers, what it is owed, DISCONNECT.
 *
 * The only module that knows the MQTT library, of which it uses the codec (`mqtt-packet`). The
 * client above that codec (MQTT.js) acknowledges a message when it has been handed to the
 * application; here the acknowledgement is the application's promise that the reading is safe,
 * so the handover is ours: a PUBLISH becomes a `Delivery`, and its PUBACK or PUBREC leaves when
 * the delivery is settled. Nothing of the handover outlives the connection.
 *
 * What is in hand is bounded by the receive maximum (MQTT 5) or the broker's own limit of messages
 * in flight (MQTT 3.1.1). Mosquitto 2.0 keeps to neither when a client with a backlog returns; the
 * socket is not read then until there is room again. Pings go out all the while, so that the
 * broker does not take the connection for dead.
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
import type { Certificates, ProtocolVersion, QoS } from "../config/config.ts";
import type { Endpoint } from "../common/endpoint.ts";
import { AcknowledgementQueue, Delivery } from "../message/delivery.ts";
import { openSocket } from "./socket.ts";
import { describeReason, describeRefusal, isVersionRefusal } from "./reason_codes.ts";
import { describeError } from "../common/retry.ts";

/** Time for the TCP and TLS handshakes, and then for the CONNACK. */
const CONNECT_TIMEOUT_MS = 10_000;

/** Time that the last acknowledgements get to leave, and then the DISCONNECT. */
const GOODBYE_TIMEOUT_MS = 5_000;

const KEEPALIVE_SECONDS = 30;

/**
 * How long the broker is asked to keep the session of a logger that is away (MQTT 5 section
 * 3.1.2.11.2): longer than any holidays of a laboratory.
 */
export const SESSION_EXPIRY_SECONDS = 60 * 24 * 3600;

/**
 * Messages that the broker may leave unacknowledged at a time: two full batches under way and as
 * many gathering.
 */
export const RECEIVE_MAXIMUM = 8_000;

/** Messages in hand at which the socket is left unread, and at which it is read again. */
const PAUSE_ABOVE = RECEIVE_MAXIMUM;
const RESUME_BELOW = 6_000;

/** The same in bytes of their payloads, for those who send more than readings. */
const PAUSE_ABOVE_BYTES = 64 * 2 ** 20;
const RESUME_BELOW_BYTES = 48 * 2 ** 20;

/** Reason code of a DISCONNECT (MQTT 5 section 3.14.2.1). */
const SESSION_TAKEN_OVER = 0x8e;

/** Larger packets are not sent by a broker that speaks MQTT 5; they could exhaust the memory. */
const MAXIMUM_PACKET_BYTES = 16 * 1024 * 1024;

/** What a broker said about itself when it accepted the connection. */
export interface BrokerLimits {
  /** Whether it had kept a session of this client id. */
  readonly sessionPresent: boolean;
  /** Seconds that it keeps the session after a disconnection; undefined before MQTT 5. */
  readonly sessionExpirySeconds: number | undefined;
  /** Undefined before MQTT 5, which alone tells. */
  readonly sharedSubscriptions: boolean | undefined;
  readonly wildcardSubscriptions: boolean;
}

/** Deliveries in hand, and bytes of their payloads. */
export interface Held {
  readonly count: number;
  readonly bytes: number;
}

/** Takes a message in, see `MqttConnectionOptions`. */
export type TakeIn = (delivery: Delivery) => Delivery | undefined;

export interface MqttConnectionOptions {
  readonly endpoint: Endpoint;
  readonly tls: Certificates | undefined;
  readonly protocolVersion: ProtocolVersion;
  readonly clientId: string;
  /** Whether the broker is to keep subscriptions and messages while this client is away. */
  readonly persistent: boolean;
  readonly user: string | undefined;
  readonly password: string | undefined;
  /**
   * Called for each message, in the order of arrival. Returns the delivery to acknowledge, which
   * need not be the same; undefined leaves the message with the broker. It must not throw.
   */
  readonly onDelivery: TakeIn;
  /** What is in hand of earlier connections: it takes room, too. */
  readonly heldBefore: () => Held;
  /** Aborted: the attempt to connect is given up. */
  readonly signal: AbortSignal;
}

/** The broker answered a CONNECT with a refusal. */
export class MqttRefusedError extends Error {
  override readonly name = "MqttRefusedError";
  /** Whether the broker might accept another protocol version. */
  readonly versionRefused: boolean;

  constructor(code: number) {
    super(describeRefusal(code));
    this.versionRefused = isVersionRefusal(code);
  }
}

/** The broker closed the connection in place of an answer to the CONNECT. */
export class MqttNoAnswerError extends Error {
  override readonly name = "MqttNoAnswerError";
}

/** What became of one filter of a SUBSCRIBE. */
export interface Subscription {
  readonly filter: string;
  /** The QoS granted, or why the broker refused, in words. */
  readonly granted: QoS | string;
}

/** An open connection. Whoever opened it ends it with `disconnect` or `destroy`. */
export class MqttConnection {
  readonly endpoint: Endpoint;
  readonly protocolVersion: ProtocolVersion;
  /** Resolves when the connection has ended, to the reason in words. */
  readonly closed: Promise<string>;
  readonly #socket: Socket;
  readonly #onDelivery: TakeIn;
  readonly #heldBefore: () => Held;
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
  #paused = false;
  #closeReason: string | undefined;
  #explained = false;
  #takenOver = false;

  /**
   * Connects and waits for the CONNACK. Messages of a kept session may be delivered before this
   * resolves: a broker sends them right behind it.
   *
   * @throws {MqttRefusedError} when the broker refuses.
   * @throws {Error} when it cannot be reached, does not answer in time or does not speak MQTT.
   */
  static async open(options: MqttConnectionOptions): Promise<MqttConnection> {
    const socket = await openSocket({ ...options, timeoutMs: CONNECT_TIMEOUT_MS });
    const connection = new MqttConnection(socket, options);
    await connection.#handshake(options);
    return connection;
  }

  private constructor(socket: Socket, options: MqttConnectionOptions) {
    this.#socket = socket;
    this.#onDelivery = options.onDelivery;
    this.#heldBefore = options.heldBefore;
    this.endpoint = options.endpoint;
    this.protocolVersion = options.protocolVersion;
    const parser = createParser({ protocolVersion: options.protocolVersion });
    parser.on("packet", (packet) => this.#receive(packet));
    parser.on("error", (error) => {
      this.destroy(`what it sends is not MQTT (${describeError(error)})`);
    });
    socket.on("data", (bytes: Buffer) => {
      this.#lastReceivedMs = performance.now();
      parser.parse(bytes);
      this.#acknowledgements.flush();
      const { count, bytes: heldBytes } = this.#held();
      if (count > PAUSE_ABOVE || heldBytes > PAUSE_ABOVE_BYTES) this.#pause();
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
    const giveUp = (): void => this.destroy("given up");
    const timer = setTimeout(() => this.destroy("no answer in time"), CONNECT_TIMEOUT_MS);
    options.signal.addEventListener("abort", giveUp);
    try {
      if (options.signal.aborted) giveUp();
      this.#write(encodeConnect(options));
      const connack = await Promise.race([this.#connack.promise, this.closed]);
      if (typeof connack === "string") {
        throw this.#explained ? new Error(connack) : new MqttNoAnswerError(connack);
      }
      const code = connack.reasonCode ?? connack.returnCode ?? 0;
      if (code !== 0) throw new MqttRefusedError(code);
      this.#limits = limitsOf(connack, options.protocolVersion);
      // A client may ping more often than the broker asks for, and so notices its end in time.
      const asked = connack.properties?.serverKeepAlive || KEEPALIVE_SECONDS;
      const intervalMs = Math.min(asked, KEEPALIVE_SECONDS) * 500;
      this.#pings = setInterval(() => this.#ping(intervalMs), intervalMs);
    } catch (error) {
      this.destroy("refused");
      await this.closed;
      throw error;
    } finally {
      clearTimeout(timer);
      options.signal.removeEventListener("abort", giveUp);
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

  /** Whether it ended for a reason that neither the broker nor this side has given. */
  get endedUnexplained(): boolean {
    return !this.#explained;
  }

  /**
   * Subscribes, and returns what became of each filter. Retained messages are asked for only
   * where the subscription is new to the broker (MQTT 5 section 3.8.3.1; 3.1.1 has no choice).
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
   * Unsubscribes and returns the filters that were subscribed to. MQTT 3.1.1 does not tell; there
   * it returns none.
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
   * Ends the handovers under way, sends a DISCONNECT, which keeps a persistent session, and
   * closes. Nothing may be taken in any more. Resolves when the connection is closed; a broker
   * that does not keep up has five seconds for each.
   */
  async disconnect(): Promise<void> {
    this.#resume();
    await this.#untilIdle();
    this.#closeReason ??= "disconnected";
    this.#write(this.#encode({ cmd: "disconnect", reasonCode: 0 }));
    this.#socket.end();
    const timer = setTimeout(() => this.#socket.destroy(), GOODBYE_TIMEOUT_MS);
    await this.closed;
    clearTimeout(timer);
  }

  /** Closes without a goodbye. */
  destroy(reason: string): void {
    this.#explained = true;
    this.#closeReason ??= reason;
    this.#socket.destroy();
  }

  /** After the end: the deliveries that are not settled and that nobody will acknowledge. */
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
        return this.#acknowledgements.complete(packet.messageId ?? 0);
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
    const delivery = this.#onDelivery(new Delivery(topic, payload as Buffer, { qos }));
    if (delivery !== undefined && qos > 0) this.#acknowledgements.add(delivery, messageId ?? 0);
  }

  /**
   * Sends a packet and waits for its answer. There is no time limit of its own: the answer may
   * stand behind a backlog that is not read for want of room, and a broker that is gone is noticed
   * by the pings.
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
    const poll = setInterval(() => this.#acknowledgements.idle && idle.resolve(), 10);
    const timer = setTimeout(idle.resolve, GOODBYE_TIMEOUT_MS);
    await Promise.race([idle.promise, this.closed]);
    clearInterval(poll);
    clearTimeout(timer);
  }

  #pause(): void {
    this.#paused = true;
    this.#socket.pause();
  }

  #held(): Held {
    const { unsettled, unsettledBytes } = this.#acknowledgements;
    const before = this.#heldBefore();
    return { count: unsettled + before.count, bytes: unsettledBytes + before.bytes };
  }

  /** Reads on, if there is room again. To be called when less is in hand of earlier connections. */
  resumeWithRoom(): void {
    if (!this.#paused) return;
    const { count, bytes } = this.#held();
    if (count < RESUME_BELOW && bytes < RESUME_BELOW_BYTES) this.#resume();
  }

  #resume(): void {
    this.#paused = false;
    // What waits unread is no sign that the broker has been silent.
    this.#lastReceivedMs = performance.now();
    this.#socket.resume();
  }

  /** A broker that has sent nothing for two intervals, not even the answer to a ping, is gone. */
  #ping(intervalMs: number): void {
    if (!this.#paused && performance.now() - this.#lastReceivedMs > 2.5 * intervalMs) {
      this.destroy("the broker does not answer any more");
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

function encodeConnect(options: MqttConnectionOptions): Buffer {
  const { protocolVersion, clientId, persistent, user, password } = options;
  const packet: Packet = {
    cmd: "connect",
    protocolId: "MQTT",
    protocolVersion,
    clientId,
    clean: !persistent,
    keepalive: KEEPALIVE_SECONDS,
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

/** What a CONNACK does not mention is unlimited (MQTT 5.0 section 3.2.2.3). */
function limitsOf(connack: IConnackPacket, protocolVersion: ProtocolVersion): BrokerLimits {
  const properties = connack.properties ?? {};
  return {
    sessionPresent: connack.sessionPresent,
    sessionExpirySeconds: protocolVersion === 5
      ? properties.sessionExpiryInterval ?? SESSION_EXPIRY_SECONDS
      : undefined,
    sharedSubscriptions: protocolVersion === 5
      ? properties.sharedSubscriptionAvailable ?? true
      : undefined,
    wildcardSubscriptions: properties.wildcardSubscriptionAvailable ?? true,
  };
}
