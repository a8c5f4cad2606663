/**
 * A TCP proxy in front of a service, for faults of the network: connections that stall, are reset
 * or refused, while the service itself is well.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { findFreePort, LOOPBACK } from "./ports.ts";

/** Which way to stall: from the client to the server, back, or both. */
export type ProxyDirection = "toServer" | "toClient" | "both";

/** The service to put the proxy in front of. */
export interface ProxyTarget {
  readonly host: string;
  readonly port: number;
}

interface Connection {
  readonly client: Socket;
  readonly server: Socket;
}

/** A connection that is to be cut; see {@linkcode TcpProxy.cutAfter}. */
interface PendingCut {
  readonly direction: ProxyDirection;
  bytesLeft: number;
  readonly onCut: () => void;
}

/** Starts a proxy on a free port. The caller disposes it; the service stays the caller's own. */
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

  /** Stalls open and new connections: they stay open and carry nothing, until `resume`. */
  pause(direction: ProxyDirection = "both"): void {
    this.#isStalledToServer ||= direction !== "toClient";
    this.#isStalledToClient ||= direction !== "toServer";
    this.#connections.forEach((connection) => this.#applyStall(connection));
  }

  /** Ends a stall; what waited in the sockets' buffers is delivered. */
  resume(): void {
    this.#isStalledToServer = false;
    this.#isStalledToClient = false;
    this.#connections.forEach((connection) => this.#applyStall(connection));
  }

  /** Resets all open connections on both sides; what was on its way is lost. Returns how many. */
  reset(): number {
    const count = this.#connections.size;
    for (const { client, server } of this.#connections) {
      client.resetAndDestroy();
      server.resetAndDestroy();
    }
    return count;
  }

  /**
   * Lets so many bytes more pass in a direction, on whichever connections, and cuts the connection
   * that brings the next one: who sends is reset, who receives gets the end of the stream behind the
   * last byte that passed. Resolves when that has happened. One cut at a time.
   */
  async cutAfter(bytes: number, direction: Exclude<ProxyDirection, "both">): Promise<void> {
    if (this.#pendingCut !== undefined) {
      throw new Error("Cutting a connection: another one is still to be cut");
    }
    await new Promise<void>((resolve) => {
      this.#pendingCut = { direction, bytesLeft: bytes, onCut: resolve };
    });
  }

  /** Gives up a cut that has not happened, whose promise then never resolves. */
  cancelCut(): void {
    this.#pendingCut = undefined;
  }

  /** Refuses new connections from now on; open ones go on. */
  async refuse(): Promise<void> {
    const listener = this.#listener;
    this.#listener = undefined;
    if (listener !== undefined) {
      // Its callback would come only after the last connection has ended.
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
    // An error is followed by "close", which ends the other side.
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
