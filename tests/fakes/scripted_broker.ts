/**
 * A broker that the test controls packet by packet, and that records every received packet: for
 * behavior that real brokers show too rarely.
 */
import type { Buffer } from "node:buffer";
import { createServer, type Server, type Socket } from "node:net";
import { generate, type Packet, parser as createParser } from "mqtt-packet";
import { waitUntil } from "../support/poll.ts";
import { LOOPBACK } from "../support/ports.ts";

/** How {@linkcode startScriptedBroker} answers. */
export interface ScriptedBrokerOptions {
  /** The code for a filter in the SUBACK; the requested QoS by default. */
  readonly grant?: (filter: string, qos: number) => number;
  /** Whether the connection is closed instead of answering a CONNECT of that version. */
  readonly hangsUpOn?: (protocolVersion: number) => boolean;
}

/** An acknowledgement that a connection received, such as `["pubrec", 7]`. */
export type Acknowledgement = readonly [cmd: string, packetId: number];

/** Starts a broker on a free port. The caller disposes it. */
export async function startScriptedBroker(
  options: ScriptedBrokerOptions = {},
): Promise<ScriptedBroker> {
  const broker = new ScriptedBroker(options);
  await broker.listen();
  return broker;
}

/** Accepts every client, has no sessions, and sends only what the test requests. */
export class ScriptedBroker implements AsyncDisposable {
  readonly host: string = LOOPBACK;
  readonly connections: ScriptedConnection[] = [];
  readonly #options: ScriptedBrokerOptions;
  readonly #server: Server;

  /** Use {@linkcode startScriptedBroker}. */
  constructor(options: ScriptedBrokerOptions) {
    this.#options = options;
    this.#server = createServer((socket) => {
      this.connections.push(new ScriptedConnection(socket, this.#options));
    });
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" ? address?.port ?? 0 : 0;
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, this.host, resolve));
  }

  /** Waits until the connection with the given number, counted from 0, has subscribed. */
  async subscribed(index: number): Promise<ScriptedConnection> {
    return await waitUntil(() => {
      const connection = this.connections[index];
      return connection?.packets.some(({ cmd }) => cmd === "subscribe") ? connection : null;
    }, { what: `connection ${index} to subscribe` });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.connections.forEach((connection) => connection.cut());
    await closed;
  }
}

/** One connection of a client. */
export class ScriptedConnection {
  /** All packets of the client, in order. */
  readonly packets: Packet[] = [];
  readonly #socket: Socket;
  readonly #options: ScriptedBrokerOptions;
  #protocolVersion = 5;

  constructor(socket: Socket, options: ScriptedBrokerOptions) {
    this.#socket = socket;
    this.#options = options;
    const parser = createParser();
    parser.on("packet", (packet) => this.#receive(packet));
    socket.on("data", (bytes: Buffer) => parser.parse(bytes));
    // A client that is killed resets its connection.
    socket.on("error", () => {});
  }

  /** The acknowledgements that the client has sent so far. */
  get acknowledgements(): Acknowledgement[] {
    return this.packets.flatMap(({ cmd, messageId }) =>
      ["puback", "pubrec", "pubcomp"].includes(cmd) ? [[cmd, messageId ?? 0] as const] : []
    );
  }

  get isClosed(): boolean {
    return this.#socket.destroyed;
  }

  /** Delivers a message with the given packet identifier. */
  publish(packetId: number, payload: string, options: { qos?: 1 | 2; topic?: string } = {}): void {
    const { qos = 2, topic = "sensors/test" } = options;
    const flags = { dup: false, retain: false };
    this.send({ cmd: "publish", topic, payload, qos, messageId: packetId, ...flags });
  }

  /** Sends the second half of a QoS 2 handover. */
  release(packetId: number): void {
    this.send({ cmd: "pubrel", messageId: packetId });
  }

  send(packet: Packet): void {
    this.#socket.write(generate(packet, { protocolVersion: this.#protocolVersion }));
  }

  /** Waits until the client has sent `count` acknowledgements. */
  async waitForAcknowledgements(count: number): Promise<void> {
    await waitUntil(() => this.acknowledgements.length >= count, {
      what: `${count} acknowledgements, got ${JSON.stringify(this.acknowledgements)}`,
    });
  }

  /** Waits until the client has processed everything sent so far, by an additional round trip. */
  async settled(): Promise<void> {
    const count = this.acknowledgements.length;
    // The client answers a PUBREL at once, even for an unknown packet identifier.
    this.release(60_000);
    await this.waitForAcknowledgements(count + 1);
    const index = this.packets.findIndex(({ messageId }) => messageId === 60_000);
    this.packets.splice(index, 1);
  }

  /** Closes the connection without a DISCONNECT. */
  cut(): void {
    this.#socket.destroy();
  }

  #receive(packet: Packet): void {
    this.packets.push(packet);
    switch (packet.cmd) {
      case "connect":
        this.#protocolVersion = packet.protocolVersion ?? 4;
        if (this.#options.hangsUpOn?.(this.#protocolVersion)) return this.cut();
        return this.send(
          this.#protocolVersion === 5
            ? { cmd: "connack", sessionPresent: false, reasonCode: 0 }
            : { cmd: "connack", sessionPresent: false, returnCode: 0 },
        );
      case "subscribe": {
        const { grant = (_filter, qos) => qos } = this.#options;
        const granted = packet.subscriptions.map(({ topic, qos }) => grant(topic, qos));
        return this.send({ cmd: "suback", messageId: packet.messageId ?? 0, granted });
      }
      case "unsubscribe":
        return this.send({
          cmd: "unsuback",
          messageId: packet.messageId ?? 0,
          granted: packet.unsubscriptions.map(() => 0),
        });
      case "pingreq":
        return this.send({ cmd: "pingresp" });
    }
  }
}
