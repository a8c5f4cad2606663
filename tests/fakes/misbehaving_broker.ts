/**
 * A server that is not a broker: it listens at the address of the broker, and answers everything
 * with bytes that the test chooses.
 */
import { Buffer } from "node:buffer";
import { createServer, type Server, type Socket } from "node:net";
import { LOOPBACK } from "../support/ports.ts";

/** How it answers. */
export interface Misbehavior {
  /** Sent after the first bytes of a connection; nothing by default. */
  readonly answer?: readonly number[] | string;
  /** Whether it closes the connection after its answer. */
  readonly closes?: boolean;
}

/** Starts to listen on a port, which must be free. The caller disposes the server. */
export async function startMisbehavingBroker(
  port: number,
  misbehavior: Misbehavior,
): Promise<MisbehavingBroker> {
  const broker = new MisbehavingBroker(misbehavior);
  await broker.listen(port);
  return broker;
}

/** The listening server. */
export class MisbehavingBroker implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #answered = 0;

  /** Use {@linkcode startMisbehavingBroker}. */
  constructor({ answer = [], closes = false }: Misbehavior) {
    const bytes = typeof answer === "string" ? Buffer.from(answer) : Buffer.from(answer);
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
      // A client that gives up may reset its connection.
      socket.on("error", () => {});
      socket.once("data", () => {
        this.#answered++;
        socket.write(bytes);
        if (closes) socket.end();
      });
    });
  }

  /** Number of connections that have sent something and received the answer. */
  get answered(): number {
    return this.#answered;
  }

  async listen(port: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(port, LOOPBACK, resolve);
    });
  }

  /** A second call has no effect. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#sockets.forEach((socket) => socket.destroy());
    await closed;
  }
}
