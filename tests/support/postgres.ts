/**
 * A real PostgreSQL server for tests and benchmarks, on a free port, with its data in a temporary
 * directory. A test can stop, kill and suspend it.
 */
import { delay, within } from "./poll.ts";
import { findFreePort, LOOPBACK } from "./ports.ts";
import {
  createTestDatabase,
  type DatabaseOptions,
  type TestDatabase,
} from "./postgres_database.ts";
import {
  type PostgresPrograms,
  type PostgresVariant,
  providePostgres,
} from "./postgres_programs.ts";
import { runSuccessfully, TestProcess } from "./process.ts";
import {
  findServiceUser,
  makeServiceDirectory,
  type ServiceUser,
  writePrivateFile,
} from "./service_user.ts";
import { runSql, type SqlRow, type SqlTarget } from "./sql.ts";

export { findInstalledPostgres, type PostgresVariant } from "./postgres_programs.ts";
export type { DatabaseOptions, TestDatabase } from "./postgres_database.ts";

/** How {@linkcode startPostgres} configures the server. */
export interface PostgresOptions {
  /** Forces a variant; see `providePostgres` for the default. */
  readonly variant?: PostgresVariant;
  /** Server settings, such as `{ max_connections: "5" }`. `fsync` is on unless set here. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Lines for the beginning of `pg_hba.conf`. */
  readonly hba?: readonly string[];
  /** Contents by name of files in the data directory that only the server can read. */
  readonly files?: Readonly<Record<string, string>>;
  /** Where to create the temporary directory, for instance in a small file system. */
  readonly parentDirectory?: string;
}

const SUPERUSER = "postgres";
const SUPERUSER_PASSWORD = "test superuser";

/** Names a directory, writable for all users, with data directories to copy, because initdb is slow. */
export const TEMPLATES_VARIABLE = "KRAKEN_TEST_POSTGRES_TEMPLATES";

const STOP_SIGNALS = { fast: "SIGINT", immediate: "SIGQUIT" } as const;

/**
 * Starts a server and waits until it accepts connections. The caller disposes it.
 *
 * @throws {Error} with the server's output when it does not start.
 */
export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const user = findServiceUser(["postgres"]);
  const directory = makeServiceDirectory(user, options.parentDirectory);
  try {
    const programs = await providePostgres(options.variant, directory);
    const server = new PostgresServer({ options, user, directory, programs });
    await server.initialize();
    return server;
  } catch (error) {
    Deno.removeSync(directory, { recursive: true });
    throw error;
  }
}

interface ServerParts {
  readonly options: PostgresOptions;
  readonly user: ServiceUser | null;
  readonly directory: string;
  readonly programs: PostgresPrograms;
}

/** A server under the control of a test. Its port stays the same across restarts. */
export class PostgresServer implements AsyncDisposable {
  readonly host: string = LOOPBACK;
  readonly #parts: ServerParts;
  #port = 0;
  #version = "";
  #process: TestProcess | undefined;

  /** Use {@linkcode startPostgres}. */
  constructor(parts: ServerParts) {
    this.#parts = parts;
  }

  get port(): number {
    return this.#port;
  }

  /** As the server reports it: `15.20`. */
  get version(): string {
    return this.#version;
  }

  get variant(): PostgresVariant {
    return this.#parts.programs.variant;
  }

  get dataDirectory(): string {
    return `${this.#parts.directory}/data`;
  }

  /** Output of the server since its last start. */
  get logLines(): readonly string[] {
    return this.#process?.lines ?? [];
  }

  get isRunning(): boolean {
    return this.#process?.isRunning ?? false;
  }

  /** Connection parameters of the superuser. */
  superuser(database: string = SUPERUSER): SqlTarget {
    const { host, port } = this;
    return { host, port, user: SUPERUSER, password: SUPERUSER_PASSWORD, database };
  }

  /** Creates the data directory and starts for the first time. {@linkcode startPostgres} calls it. */
  async initialize(): Promise<void> {
    const { programs, user, options } = this.#parts;
    const templates = Deno.env.get(TEMPLATES_VARIABLE);
    if (templates) {
      const template = await this.#provideTemplate(`${templates}/${programs.variant}`);
      await runSuccessfully("cp", {
        ...this.#environment(),
        args: ["-a", template, this.dataDirectory],
      });
    } else {
      await this.#createData(this.dataDirectory);
    }
    for (const [name, content] of Object.entries(options.files ?? {})) {
      writePrivateFile(user, `${this.dataDirectory}/${name}`, content);
    }
    const hbaPath = `${this.dataDirectory}/pg_hba.conf`;
    const hba = [...options.hba ?? [], Deno.readTextFileSync(hbaPath)].join("\n");
    writePrivateFile(user, hbaPath, hba);
    await this.#startOnFreePort();
    const [row] = await this.query<{ server_version: string }>("SHOW server_version");
    this.#version = row?.server_version.split(" ")[0] ?? "";
  }

  /** Starts a stopped or killed server and waits until it has recovered and accepts connections. */
  async start(): Promise<void> {
    if (this.isRunning) {
      throw new Error("Starting PostgreSQL: already running");
    }
    const process = this.#spawn();
    await process.waitForLine("database system is ready to accept connections", {
      timeoutMs: 60_000,
    });
  }

  /**
   * Stops the server, as an administrator would: `fast` ends sessions and writes a checkpoint,
   * `immediate` writes none, so that the next start must recover.
   */
  async stop(mode: keyof typeof STOP_SIGNALS = "fast"): Promise<void> {
    this.#process?.kill(STOP_SIGNALS[mode]);
    await this.#process?.finished();
  }

  async restart(mode: keyof typeof STOP_SIGNALS = "fast"): Promise<void> {
    await this.stop(mode);
    await this.start();
  }

  /**
   * Signals the server and all its backends at once. SIGKILL resolves when they are gone; SIGSTOP
   * makes the server accept TCP connections but never answer, until SIGCONT.
   */
  async kill(signal: "SIGKILL" | "SIGSTOP" | "SIGCONT" = "SIGKILL"): Promise<void> {
    await this.#process?.killTree(signal);
    if (signal === "SIGKILL") {
      await this.#process?.finished();
    }
  }

  /** Makes the server read its configuration files again, `pg_hba.conf` for instance. */
  reload(): void {
    this.#process?.kill("SIGHUP");
  }

  /** Runs SQL as superuser in the database `postgres`; see `runSql`. */
  async query<Row extends SqlRow = SqlRow>(
    sql: string,
    params: readonly unknown[] = [],
  ): Promise<Row[]> {
    return await runSql<Row>(this.superuser(), sql, { params });
  }

  /** Creates a database with the logger's tables and role. It is deleted with the server. */
  async createDatabase(options: DatabaseOptions): Promise<TestDatabase> {
    return await createTestDatabase(this.superuser(), options);
  }

  /** Ends the server, whatever its state, and removes its data. */
  async [Symbol.asyncDispose](): Promise<void> {
    const process = this.#process;
    if (process !== undefined) {
      // An immediate shutdown, unlike SIGKILL, releases shared memory.
      await process.killTree("SIGCONT");
      process.kill(STOP_SIGNALS.immediate);
      await within(process.exited, 10_000);
      await process[Symbol.asyncDispose]();
    }
    Deno.removeSync(this.#parts.directory, { recursive: true });
  }

  /** Returns the data directory to copy; the first server creates it. */
  async #provideTemplate(path: string): Promise<string> {
    if (!isDirectory(path)) {
      const created = `${this.#parts.directory}/template`;
      await this.#createData(created);
      try {
        Deno.renameSync(created, path);
      } catch (error) {
        // Another server has created it first; the duplicate is removed with the directory of this one.
        if (!isDirectory(path)) throw error;
      }
    }
    return path;
  }

  async #createData(path: string): Promise<void> {
    const { programs, directory, user } = this.#parts;
    const passwordFile = `${directory}/password`;
    writePrivateFile(user, passwordFile, SUPERUSER_PASSWORD);
    await runSuccessfully(programs.initdb, {
      ...this.#environment(),
      args: [
        ...["-D", path, "-U", SUPERUSER, "-E", "UTF8", "--locale=C", "--no-sync"],
        ...["--auth=scram-sha-256", `--pwfile=${passwordFile}`],
      ],
    });
  }

  async #startOnFreePort(): Promise<void> {
    for (let attempt = 1;; attempt++) {
      this.#port = findFreePort();
      try {
        return await this.start();
      } catch (error) {
        await this.#process?.[Symbol.asyncDispose]();
        const isTaken = this.logLines.some((line) => line.includes("Address already in use"));
        if (!isTaken || attempt === 10) {
          throw error;
        }
        await delay(10);
      }
    }
  }

  #spawn(): TestProcess {
    const { programs, options, directory } = this.#parts;
    const settings = {
      listen_addresses: this.host,
      port: String(this.#port),
      unix_socket_directories: directory,
      // In the data directory, because a killed server would leave its files in /dev/shm.
      dynamic_shared_memory_type: "mmap",
      ...options.settings,
    };
    const args = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    this.#process = TestProcess.start(programs.postgres, {
      ...this.#environment(),
      args: ["-D", this.dataDirectory, ...args],
    });
    return this.#process;
  }

  #environment(): ServiceUserEnvironment {
    const { user, directory } = this.#parts;
    // A fixed environment: variables such as PGPORT or LC_MESSAGES must not reach the server.
    const env = { PATH: "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" };
    return { ...user, env, clearEnv: true, cwd: directory };
  }
}

function isDirectory(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

interface ServiceUserEnvironment extends Partial<ServiceUser> {
  readonly env: Readonly<Record<string, string>>;
  readonly clearEnv: true;
  readonly cwd: string;
}
