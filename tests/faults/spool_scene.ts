/**
 * The common parts of the spool tests: a database behind a proxy, so that it can become unavailable
 * for one logger at once and without a restart, a broker, and a directory for the spool.
 */
import type { MosquittoBroker, MosquittoOptions } from "../support/mosquitto.ts";
import { loggerEnv, type LoggerOptions } from "../support/logger_process.ts";
import { type LoggerEnv, type LoggerProcess, startLogger } from "../support/logger_process.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
import { startProxy, type TcpProxy } from "../support/proxy.ts";
import { createSession, type SharedPostgres, startTellingMosquitto } from "../support/harness.ts";

/** The log line when the disk has no space for the spool. */
export const SPOOL_DISK_FULL = /ERROR {4}The spool is not accepting messages: .*\bdisk is full/;

/** How {@linkcode setScene} sets the scene. */
export interface SceneOptions {
  /** Settings of the broker; its queues have no limit by default. */
  readonly broker?: MosquittoOptions;
  /** Variables of each logger. */
  readonly env?: LoggerEnv;
  /** `false`: without a spool. */
  readonly spool?: boolean;
  /** The directory of the spool; a temporary one by default. */
  readonly directory?: string;
}

/** Starts everything except a logger. The database is available at first. */
export async function setScene(
  postgres: SharedPostgres,
  options: SceneOptions = {},
): Promise<Scene> {
  const resources = new AsyncDisposableStack();
  try {
    const database = await postgres.createDatabase();
    const proxy = resources.use(await startProxy(postgres.server));
    const broker = resources.use(await startTellingMosquitto(options.broker));
    await createSession(broker);
    const directory = options.directory ?? Deno.makeTempDirSync({ prefix: "kraken-test-" });
    if (options.directory === undefined) {
      resources.defer(() => Deno.removeSync(directory, { recursive: true }));
    }
    const env = loggerEnv({ database, broker }, {
      DATABASE_HOST: proxy.host,
      DATABASE_PORT: String(proxy.port),
      ...(options.spool !== false && { SPOOL_DIRECTORY: directory }),
      ...options.env,
    });
    return new Scene({ database, proxy, broker, directory, env, resources });
  } catch (error) {
    await resources.disposeAsync();
    throw error;
  }
}

interface SceneParts {
  readonly database: TestDatabase;
  readonly proxy: TcpProxy;
  readonly broker: MosquittoBroker;
  readonly directory: string;
  readonly env: LoggerEnv;
  readonly resources: AsyncDisposableStack;
}

/** Broker, database and directory for the loggers of a test. The caller disposes it. */
export class Scene implements AsyncDisposable {
  readonly database: TestDatabase;
  readonly proxy: TcpProxy;
  readonly broker: MosquittoBroker;
  /** The directory of the spool. */
  readonly directory: string;
  readonly env: LoggerEnv;
  readonly #resources: AsyncDisposableStack;

  /** Use {@linkcode setScene}. */
  constructor({ database, proxy, broker, directory, env, resources }: SceneParts) {
    this.database = database;
    this.proxy = proxy;
    this.broker = broker;
    this.directory = directory;
    this.env = env;
    this.#resources = resources;
  }

  /** Starts a logger with additional variables. The caller disposes it before the scene. */
  startLogger(env: LoggerEnv = {}, options: LoggerOptions = {}): LoggerProcess {
    return startLogger({ ...this.env, ...env }, options);
  }

  /** Ends the connections to the database, and refuses new ones. */
  async takeDatabaseAway(): Promise<void> {
    await this.proxy.refuse();
    this.proxy.reset();
  }

  async bringDatabaseBack(): Promise<void> {
    await this.proxy.allow();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync();
  }
}
