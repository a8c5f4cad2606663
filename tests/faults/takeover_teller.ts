/**
 * A proxy that adds a behavior of newer brokers to Mosquitto before 2.0.15: it notifies a client of
 * MQTT 5 of a session takeover before closing its connection (MQTT 5.0 section 3.1.4).
 */
import { Buffer } from "node:buffer";
import { connect, createServer, type Server, type Socket } from "node:net";
import { LOOPBACK } from "../support/ports.ts";
import type { ProxyTarget } from "../support/proxy.ts";

/** DISCONNECT with the reason code "session taken over" and no properties. */
const TAKEN_OVER = Buffer.from([0xe0, 2, 0x8e, 0]);

/**
 * Starts a proxy that treats every end of a connection by the broker as a takeover, and notifies
 * the client. The caller disposes it.
 */
export async function startTakeoverTeller(broker: ProxyTarget): Promise<TakeoverTeller> {
  const teller = new TakeoverTeller(broker);
  await teller.listen();
  return teller;
}

/** The proxy, for a broker that ends connections only because of takeovers. */
export class TakeoverTeller implements AsyncDisposable {
  readonly host: string = LOOPBACK;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  /** Use {@linkcode startTakeoverTeller}. */
  constructor(broker: ProxyTarget) {
    this.#server = createServer((client) => {
      const { host, port } = broker;
      const server = connect({ host, port, noDelay: true });
      this.#keep(client);
      this.#keep(server);
      client.pipe(server);
      server.pipe(client, { end: false });
      // There is no "end" before it if the broker has left data unread.
      server.once("close", () => client.end(TAKEN_OVER));
      client.once("close", () => server.destroy());
    });
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" ? address?.port ?? 0 : 0;
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, this.host, resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#sockets.forEach((socket) => socket.destroy());
    await closed;
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    // An error is followed by "close".
    socket.on("error", () => {});
  }
}
