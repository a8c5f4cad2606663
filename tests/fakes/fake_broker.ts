/** A broker controlled by the test, for answers that no real broker gives on demand. */
import { Buffer } from "node:buffer";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { generate, type IConnackPacket, type Packet, parser as createParser } from "mqtt-packet";
import { waitUntil } from "../support/poll.ts";
import { LOOPBACK } from "../support/ports.ts";

/** How {@linkcode FakeBroker.start} answers. */
export interface FakeBrokerOptions {
  /** Members of the CONNACK; null: no CONNACK is sent. */
  readonly connack?: Partial<IConnackPacket> | null;
  /** Packets in the same TCP segment as the CONNACK. */
  readonly behindConnack?: readonly Packet[];
  /** Bytes that are not MQTT, sent at once to every client that connects. */
  readonly greeting?: Uint8Array;
  /** Whether PINGREQ is answered; true by default. */
  readonly answersPings?: boolean;
}

/** Listens on a free port, answers in the version of each CONNECT, and records all packets. */
export class FakeBroker implements AsyncDisposable {
  readonly host: string = LOOPBACK;
  readonly received: Packet[] = [];
  readonly #options: FakeBrokerOptions;
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  #version: 4 | 5 = 5;

  private constructor(options: FakeBrokerOptions) {
    this.#options = options;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  static async start(options: FakeBrokerOptions = {}): Promise<FakeBroker> {
    const broker = new FakeBroker(options);
    await new Promise<void>((resolve) => broker.#server.listen(0, LOOPBACK, resolve));
    return broker;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** The received packets of a kind. */
  of<Kind extends Packet["cmd"]>(cmd: Kind): Extract<Packet, { cmd: Kind }>[] {
    return this.received.filter((packet) => packet.cmd === cmd) as Extract<Packet, { cmd: Kind }>[];
  }

  /** Waits until `count` packets of a kind have been received. */
  async waitFor(cmd: Packet["cmd"], count = 1): Promise<void> {
    await waitUntil(() => this.of(cmd).length >= count, { what: `${count} ${cmd}`, intervalMs: 5 });
  }

  /** Sends packets to all connected clients, in one write. */
  send(...packets: readonly Packet[]): void {
    const bytes = this.#encode(packets);
    this.#sockets.forEach((socket) => socket.write(bytes));
  }

  /** Closes the connections without a DISCONNECT. */
  hangUp(): void {
    this.#sockets.forEach((socket) => socket.destroy());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Deno 2.6 does not report the end of a server whose connections have all ended before.
    const closed = [...this.#sockets].map((socket) => once(socket, "close"));
    this.#server.close();
    this.hangUp();
    await Promise.all(closed);
  }

  #encode(packets: readonly Packet[]): Buffer {
    return Buffer.concat(
      packets.map((packet) => generate(packet, { protocolVersion: this.#version })),
    );
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    // The program under test may reset the connection at any time; the tests do not depend on it.
    socket.on("error", () => {});
    if (this.#options.greeting !== undefined) socket.write(this.#options.greeting);
    const parser = createParser();
    parser.on("packet", (packet) => {
      this.received.push(packet);
      if (packet.cmd === "connect") this.#welcome(packet.protocolVersion === 5 ? 5 : 4, socket);
      if (packet.cmd === "pingreq" && this.#options.answersPings !== false) {
        socket.write(this.#encode([{ cmd: "pingresp" }]));
      }
    });
    socket.on("data", (bytes: Buffer) => parser.parse(bytes));
  }

  #welcome(version: 4 | 5, socket: Socket): void {
    this.#version = version;
    const { connack = {}, behindConnack = [] } = this.#options;
    if (connack === null) return;
    const code = version === 5 ? { reasonCode: 0 } : { returnCode: 0 };
    const packet = { cmd: "connack", sessionPresent: false, ...code, ...connack } as const;
    socket.write(this.#encode([packet, ...behindConnack]));
  }
}
