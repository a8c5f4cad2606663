/**
 * PGlite as a PostgreSQL server for several connections at the same time.
 *
 * PGlite is a single backend. The server class of `pglite-socket` switches between connections after
 * each message, and the connections share one namespace of prepared statements: a second connection
 * cannot prepare a statement of the same name, and one connection may execute what another has bound.
 * Here each connection keeps its turn until its transaction ends, and the names of its prepared
 * statements start with its number.
 */

import type { PGlite } from "@electric-sql/pglite";
import { PGLiteSocketHandler, type PGLiteSocketHandlerOptions } from "@electric-sql/pglite-socket";
import { Buffer } from "node:buffer";
import { createServer, type Socket } from "node:net";
import { listen } from "./listen.ts";

/** A running server. The caller disposes it and closes the database afterwards. */
export interface PGliteServer extends AsyncDisposable {
  readonly port: number;
  /** Runs an action on the database in a separate turn, between those of the connections. */
  exclusively<T>(action: () => Promise<T>): Promise<T>;
}

/** Serves a database to PostgreSQL clients on a free port of `host`. */
export async function servePGlite(db: PGlite, host: string): Promise<PGliteServer> {
  const turns = new Turns();
  const sockets = new Set<Socket>();
  const sessions = new Set<Session>();
  let connections = 0;
  const server = createServer((socket) => {
    const session = new Session(db, { turns, id: ++connections });
    sockets.add(socket);
    sessions.add(session);
    socket.once("close", () => sockets.delete(socket));
    session.ended.then(() => sessions.delete(session));
    // The library's handler uses only these four methods of the library's queue.
    const queryQueue = session as unknown as PGLiteSocketHandlerOptions["queryQueue"];
    const handler = new PGLiteSocketHandler({ queryQueue, closeOnDetach: true });
    refuseGssEncryption(socket, () => handler.attach(socket));
  });
  const port = await listen(server, host);
  return {
    port,
    exclusively: (action) => turns.take(action),
    async [Symbol.asyncDispose](): Promise<void> {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      const ended = [...sessions].map((session) => session.ended);
      sockets.forEach((socket) => socket.destroy());
      await Promise.all([closed, ...ended]);
    },
  };
}

/** GSSENCRequest (PostgreSQL manual, section "Message Formats"). */
const GSSENC_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30]);

/**
 * A client whose user has a Kerberos ticket requests GSSAPI encryption first. The library's handler
 * does not know this request and would wait for more bytes.
 */
function refuseGssEncryption(socket: Socket, proceed: () => void): void {
  socket.once("data", (bytes: Buffer) => {
    if (bytes.equals(GSSENC_REQUEST)) {
      socket.write("N");
    } else {
      socket.pause();
      socket.unshift(bytes);
    }
    proceed();
    socket.resume();
  });
}

/** A lock; waiting callers get it in the order of their calls. */
class Turns {
  #last: Promise<void> = Promise.resolve();

  /** Waits for the caller's turn. Resolves to the function that ends the turn. */
  async begin(): Promise<() => void> {
    const before = this.#last;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#last = promise;
    await before;
    return resolve;
  }

  async take<T>(action: () => Promise<T>): Promise<T> {
    const end = await this.begin();
    try {
      return await action();
    } finally {
      end();
    }
  }
}

/** Type bytes of the messages (PostgreSQL manual, section "Message Formats"). */
const TYPE = {
  bind: 0x42,
  close: 0x43,
  describe: 0x44,
  execute: 0x45,
  flush: 0x48,
  parse: 0x50,
  terminate: 0x58,
} as const;

/** Parts of an extended query; they take effect together at the Sync that follows them. */
const PARTS: readonly number[] = [
  TYPE.parse,
  TYPE.bind,
  TYPE.describe,
  TYPE.execute,
  TYPE.close,
];

/** The queue of one connection; the library's handler feeds it. */
class Session {
  readonly #db: PGlite;
  readonly #turns: Turns;
  readonly #prefix: string;
  readonly #ended = Promise.withResolvers<void>();
  #parts: Uint8Array[] = [];
  #previous: Promise<void> = Promise.resolve();
  #endTurn: (() => void) | undefined;
  #closed = false;

  constructor(db: PGlite, { turns, id }: { readonly turns: Turns; readonly id: number }) {
    this.#db = db;
    this.#turns = turns;
    this.#prefix = `${id}:`;
  }

  /** Resolves when the connection is closed and its open transaction, if any, is rolled back. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** The handler passes each message. Resolves when the next one may be handled. */
  enqueue(_id: number, message: Uint8Array, onData: (data: Uint8Array) => void): Promise<void> {
    const handled = this.#previous.then(() => this.#handle(message, onData));
    // The handler gets the failure from `handled` and closes the connection.
    this.#previous = handled.catch(() => {});
    return handled;
  }

  /** The handler calls this when the connection is closed. */
  clearQueueForHandler(): void {
    this.#closed = true;
  }

  /** The handler calls this after `clearQueueForHandler`. */
  async clearTransactionIfNeeded(): Promise<void> {
    await this.#previous;
    try {
      if (this.#endTurn !== undefined && this.#db.isInTransaction()) {
        await this.#db.exec("ROLLBACK");
      }
    } finally {
      this.#endTurn?.();
      this.#endTurn = undefined;
      this.#ended.resolve();
    }
  }

  getQueueLength(): number {
    return this.#parts.length;
  }

  async #handle(message: Uint8Array, onData: (data: Uint8Array) => void): Promise<void> {
    const type = message[0] ?? 0;
    // A Terminate message would end the only backend.
    if (this.#closed || type === TYPE.terminate) return;
    this.#parts.push(this.#withOwnNames(message));
    if (PARTS.includes(type)) return;
    const messages = Buffer.concat(this.#parts);
    this.#parts = [];
    this.#endTurn ??= await this.#turns.begin();
    await this.#db.runExclusive(() =>
      this.#db.execProtocolRawStream(messages, { onRawData: onData })
    );
    if (type === TYPE.flush || this.#db.isInTransaction()) return;
    this.#endTurn();
    this.#endTurn = undefined;
  }

  /** Prefixes the name of the prepared statement in a message with the connection's number. */
  #withOwnNames(message: Uint8Array): Uint8Array {
    const offset = statementNameOffset(message);
    // No name, or the empty name, which is prepared again before each use.
    if (offset === undefined || message[offset] === 0) return message;
    const renamed = Buffer.concat([
      message.subarray(0, offset),
      Buffer.from(this.#prefix),
      message.subarray(offset),
    ]);
    renamed.writeInt32BE(renamed.length - 1, 1);
    return renamed;
  }
}

/** Returns the offset of the name of a prepared statement in a message, if it has one. */
function statementNameOffset(message: Uint8Array): number | undefined {
  switch (message[0]) {
    case TYPE.parse:
      return 5;
    case TYPE.bind:
      return message.indexOf(0, 5) + 1;
    case TYPE.describe:
    case TYPE.close:
      return message[5] === "S".charCodeAt(0) ? 6 : undefined;
    default:
      return undefined;
  }
}
