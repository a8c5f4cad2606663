/**
 * What answers in the place of a broker and is none: it listens where the logger looks for its
 * broker, and answers whatever it is sent with bytes of the test's choice.
 */
import { Buffer } from "node:buffer";
import { createServer, type Server, type Socket } from "node:net";
import { LOOPBACK } from "../support/ports.ts";

/** How it answers. */
export interface Misbehaviour {
  /** Sent at the first bytes of a connection; nothing by default. */
  readonly answer?: readonly number[] | string;
  /** Whether it closes the connection behind its answer. */
  readonly closes?: boolean;
}

/** Starts to listen on a port, which must be free. The caller disposes it. */
export async function startMisbehavingBroker(
  port: number,
  misbehaviour: Misbehaviour,
): Promise<MisbehavingBroker> {
  const broker = new MisbehavingBroker(misbehaviour);
  await broker.listen(port);
  return broker;
}

/** It at work. */
export class MisbehavingBroker implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #answered = 0;

  /** Use {@linkcode startMisbehavingBroker}. */
  constructor({ answer = [], closes = false }: Misbehaviour) {
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

  /** Connections that have sent something, and got the answer. */
  get answered(): number {
    return this.#answered;
  }

  async listen(port: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(port, LOOPBACK, resolve);
    });
  }

  /** May be called again, without effect. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#sockets.forEach((socket) => socket.destroy());
    await closed;
  }
}
