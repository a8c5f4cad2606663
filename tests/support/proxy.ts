/**
 * A TCP proxy in front of a service, for network faults: connections stall, are reset or refused,
 * while the service itself works.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { findFreePort, LOOPBACK } from "./ports.ts";

/** The direction: from the client to the server, from the server to the client, or both. */
export type ProxyDirection = "toServer" | "toClient" | "both";

/** The service behind the proxy. */
export interface ProxyTarget {
  readonly host: string;
  readonly port: number;
}

interface Connection {
  readonly client: Socket;
  readonly server: Socket;
}

/** A requested cut; see {@linkcode TcpProxy.cutAfter}. */
interface PendingCut {
  readonly direction: ProxyDirection;
  bytesLeft: number;
  readonly onCut: () => void;
}

/** Starts a proxy on a free port. The caller disposes it, and continues to own the service. */
export async function startProxy(target: ProxyTarget): Promise<TcpProxy> {
  const proxy = new TcpProxy(target);
  await proxy.allow();
  return proxy;
}

/** A proxy under the control of a test. Its port stays the same. */
export class TcpProxy implements AsyncDisposable {
  readonly host: string = LOOPBACK;
  readonly #target: ProxyTarget;
  readonly #connections = new Set<Connection>();
  #port = 0;
  #listener: Server | undefined;
  #isStalledToServer = false;
  #isStalledToClient = false;
  #accepted = 0;
  #bytesToServer = 0;
  #bytesToClient = 0;
  #pendingCut: PendingCut | undefined;

  /** Use {@linkcode startProxy}. */
  constructor(target: ProxyTarget) {
    this.#target = target;
  }

  get port(): number {
    return this.#port;
  }

  /** Connections accepted since the start. */
  get acceptedConnections(): number {
    return this.#accepted;
  }

  get openConnections(): number {
    return this.#connections.size;
  }

  get bytesToServer(): number {
    return this.#bytesToServer;
  }

  get bytesToClient(): number {
    return this.#bytesToClient;
  }

  /** Stalls open and new connections: they stay open and transfer nothing until `resume`. */
  pause(direction: ProxyDirection = "both"): void {
    this.#isStalledToServer ||= direction !== "toClient";
    this.#isStalledToClient ||= direction !== "toServer";
    this.#connections.forEach((connection) => this.#applyStall(connection));
  }

  /** Ends a stall; the data in the buffers of the sockets are delivered. */
  resume(): void {
    this.#isStalledToServer = false;
    this.#isStalledToClient = false;
    this.#connections.forEach((connection) => this.#applyStall(connection));
  }

  /** Resets all open connections on both sides, which loses data in transit. Returns their number. */
  reset(): number {
    const count = this.#connections.size;
    for (const { client, server } of this.#connections) {
      client.resetAndDestroy();
      server.resetAndDestroy();
    }
    return count;
  }

  /**
   * Lets `bytes` more bytes pass in a direction, on all connections together, and cuts the connection
   * of the next byte: its sender is reset, and its receiver gets the end of the stream after the last
   * byte that passed. Resolves after the cut. Only one cut may be pending.
   */
  async cutAfter(bytes: number, direction: Exclude<ProxyDirection, "both">): Promise<void> {
    if (this.#pendingCut !== undefined) {
      throw new Error("Cutting a connection: another cut is pending");
    }
    await new Promise<void>((resolve) => {
      this.#pendingCut = { direction, bytesLeft: bytes, onCut: resolve };
    });
  }

  /** Cancels a pending cut, whose promise then never resolves. */
  cancelCut(): void {
    this.#pendingCut = undefined;
  }

  /** Refuses new connections from now on; open ones stay open. */
  async refuse(): Promise<void> {
    const listener = this.#listener;
    this.#listener = undefined;
    if (listener !== undefined) {
      // The callback of `close` is called only after the last connection has ended.
      listener.close();
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  }

  /** Accepts connections again. */
  async allow(): Promise<void> {
    for (let attempt = 1; this.#listener === undefined; attempt++) {
      const port = this.#port === 0 ? findFreePort() : this.#port;
      const listener = createServer((client) => this.#accept(client));
      try {
        await new Promise<void>((resolve, reject) => {
          listener.once("error", reject);
          listener.listen(port, this.host, resolve);
        });
        this.#listener = listener;
        this.#port = port;
      } catch (error) {
        if (this.#port !== 0 || attempt === 10) {
          throw error;
        }
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.refuse();
    const closed = [...this.#connections].flatMap(({ client, server }) =>
      [client, server].map((socket) => new Promise((resolve) => socket.once("close", resolve)))
    );
    this.#connections.forEach(({ client, server }) => {
      client.destroy();
      server.destroy();
    });
    await Promise.all(closed);
  }

  #accept(client: Socket): void {
    this.#accepted++;
    const server = connect({ host: this.#target.host, port: this.#target.port, noDelay: true });
    client.setNoDelay(true);
    const connection = { client, server };
    this.#connections.add(connection);
    this.#forward(client, server, {
      direction: "toServer",
      count: (bytes) => this.#bytesToServer += bytes,
    });
    this.#forward(server, client, {
      direction: "toClient",
      count: (bytes) => this.#bytesToClient += bytes,
    });
    const finish = (): void => {
      this.#connections.delete(connection);
      client.destroy();
      server.destroy();
    };
    client.once("close", finish);
    server.once("close", finish);
    this.#applyStall(connection);
  }

  #forward(from: Socket, to: Socket, { direction, count }: ForwardOptions): void {
    from.on("data", (chunk: Uint8Array) => {
      if (to.destroyed || to.writableEnded) {
        return;
      }
      const cut = this.#pendingCut?.direction === direction ? this.#pendingCut : undefined;
      if (cut !== undefined && cut.bytesLeft < chunk.length) {
        this.#pendingCut = undefined;
        count(cut.bytesLeft);
        to.end(chunk.subarray(0, cut.bytesLeft), () => {
          from.resetAndDestroy();
          cut.onCut();
        });
        return;
      }
      if (cut !== undefined) {
        cut.bytesLeft -= chunk.length;
      }
      count(chunk.length);
      if (!to.write(chunk)) {
        from.pause();
      }
    });
    to.on("drain", () => this.#connections.forEach((connection) => this.#applyStall(connection)));
    from.on("end", () => to.end());
    // "close" follows an error, and ends the other side.
    from.on("error", () => {});
  }

  #applyStall({ client, server }: Connection): void {
    setFlow(client, { isStalled: this.#isStalledToServer, target: server });
    setFlow(server, { isStalled: this.#isStalledToClient, target: client });
  }
}

interface ForwardOptions {
  readonly direction: ProxyDirection;
  readonly count: (bytes: number) => void;
}

interface Flow {
  readonly isStalled: boolean;
  readonly target: Socket;
}

function setFlow(source: Socket, { isStalled, target }: Flow): void {
  if (isStalled || target.writableNeedDrain) {
    source.pause();
  } else {
    source.resume();
  }
}
