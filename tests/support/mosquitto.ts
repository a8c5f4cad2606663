/**
 * A real Mosquitto for tests and benchmarks, on a free port, with its store in a temporary
 * directory.
 */
import type { BrokerOptions, RestartOptions, TestBroker } from "./broker_types.ts";
import { waitUntil } from "./poll.ts";
import { findFreePort, LOOPBACK } from "./ports.ts";
import { runSuccessfully, TestProcess } from "./process.ts";
import { isFile, requireProgram } from "./programs.ts";
import {
  findServiceUser,
  makeServiceDirectory,
  type ServiceUser,
  writePrivateFile,
} from "./service_user.ts";

/** How {@linkcode startMosquitto} sets the broker up. */
export interface MosquittoOptions extends BrokerOptions {
  /** Keeps sessions and messages across a restart; `true` by default. */
  readonly persistence?: boolean;
  /** Messages queued for a client that is disconnected or slow; 0, the default here, is unlimited. */
  readonly maxQueuedMessages?: number;
  /** Messages in flight for each client; Mosquitto's default is 20. */
  readonly maxInflightMessages?: number;
  /** The highest QoS that the broker grants; 2 by default. */
  readonly maxQos?: 0 | 1 | 2;
  /** Lines of the access control file, such as `topic read sensors/#`. */
  readonly acl?: readonly string[];
  /** Further lines of the configuration; those for a listener, such as `cafile`, work too. */
  readonly config?: readonly string[];
  /** Files that only the broker can read; `config` refers to them by name, without a path. */
  readonly files?: Readonly<Record<string, string>>;
}

/**
 * Starts Mosquitto and waits until it accepts connections. The caller disposes it.
 *
 * @throws {Error} when it is not installed, or with its output when it does not start.
 */
export async function startMosquitto(options: MosquittoOptions = {}): Promise<MosquittoBroker> {
  const program = requireProgram("mosquitto");
  const user = findServiceUser(["mosquitto"]);
  const directory = makeServiceDirectory(user);
  const broker = new MosquittoBroker({ options, program, user, directory });
  try {
    await broker.initialize();
    return broker;
  } catch (error) {
    await broker[Symbol.asyncDispose]();
    throw error;
  }
}

interface BrokerParts {
  readonly options: MosquittoOptions;
  readonly program: string;
  readonly user: ServiceUser | null;
  readonly directory: string;
}

/** Mosquitto under the control of a test. */
export class MosquittoBroker implements TestBroker {
  readonly kind = "mosquitto";
  readonly host: string = LOOPBACK;
  readonly usualQos = 2;
  readonly #parts: BrokerParts;
  #port = 0;
  #process: TestProcess | undefined;
  #users: BrokerOptions["users"];

  /** Use {@linkcode startMosquitto}. */
  constructor(parts: BrokerParts) {
    this.#parts = parts;
    this.#users = parts.options.users;
  }

  get port(): number {
    return this.#port;
  }

  get isRunning(): boolean {
    return this.#process?.isRunning ?? false;
  }

  /** Passwords by user name; undefined while they are being changed, or if that failed. */
  get users(): BrokerOptions["users"] {
    return this.#users;
  }

  /** See `BrokerAddress`. */
  get receiveMaximum(): number {
    // 0 means no limit; more than a thousand would not be faster.
    return this.#parts.options.maxInflightMessages === 0
      ? 1000
      : this.#parts.options.maxInflightMessages ?? 20;
  }

  /** Output of the broker since its last start, including connections and disconnections. */
  get logLines(): readonly string[] {
    return this.#process?.lines ?? [];
  }

  /** Writes the configuration and starts for the first time. {@linkcode startMosquitto} calls it. */
  async initialize(): Promise<void> {
    const { options, user, directory } = this.#parts;
    this.writeFiles(options.files ?? {});
    if (options.acl !== undefined) {
      writePrivateFile(user, `${directory}/acl`, options.acl.join("\n") + "\n");
    }
    await this.#writePasswords(options.users);
    for (let attempt = 1;; attempt++) {
      this.#port = findFreePort();
      this.#writeConfig();
      try {
        return await this.start();
      } catch (error) {
        const isTaken = this.logLines.some((line) => line.includes("Address already in use"));
        if (!isTaken || attempt === 10) {
          throw error;
        }
      }
    }
  }

  async start(): Promise<void> {
    if (this.isRunning) {
      throw new Error("Starting Mosquitto: already running");
    }
    const { program, user, directory } = this.#parts;
    this.#process = TestProcess.start(program, {
      args: ["-c", `${directory}/mosquitto.conf`],
      cwd: directory,
      ...user,
    });
    try {
      await this.#process.waitForLine(/mosquitto version \S+ running/);
    } catch (error) {
      await this.#process[Symbol.asyncDispose]();
      throw error;
    }
  }

  async stop(): Promise<void> {
    this.signal("SIGCONT");
    this.signal("SIGTERM");
    await this.#process?.finished();
  }

  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.#process?.finished();
  }

  async restart({ keepStore = true }: RestartOptions = {}): Promise<void> {
    await this.stop();
    if (!keepStore) {
      this.deleteStore();
    }
    await this.start();
  }

  /** Deletes sessions and messages. The broker must be stopped. */
  deleteStore(): void {
    if (this.isRunning) {
      throw new Error("Deleting the store of Mosquitto: it is still running");
    }
    for (const { name } of Deno.readDirSync(this.#parts.directory)) {
      if (name.startsWith("mosquitto.db")) {
        Deno.removeSync(`${this.#parts.directory}/${name}`);
      }
    }
  }

  /**
   * Makes the broker save its store now, so that a SIGKILL afterwards does not lose it. Otherwise the
   * broker saves it every half hour and when it is stopped.
   */
  async save(): Promise<void> {
    const before = this.#storeInode();
    this.signal("SIGUSR1");
    // The broker replaces the old file when the new one is complete.
    await waitUntil(() => this.#storeInode() !== before, { what: "the store of Mosquitto" });
  }

  /** Replaces files; the broker reads them at its next start. */
  writeFiles(files: Readonly<Record<string, string>>): void {
    const { user, directory } = this.#parts;
    for (const [name, content] of Object.entries(files)) {
      writePrivateFile(user, `${directory}/${name}`, content);
    }
  }

  /** Replaces the users; open connections stay open. */
  async setUsers(users: Readonly<Record<string, string>>): Promise<void> {
    this.#users = undefined;
    await this.#writePasswords(users);
    this.#users = users;
    this.signal("SIGHUP");
  }

  /** Sends a signal; after SIGSTOP, the broker accepts connections but never answers. */
  signal(signal: Deno.Signal): void {
    this.#process?.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process?.[Symbol.asyncDispose]();
    Deno.removeSync(this.#parts.directory, { recursive: true });
  }

  #storeInode(): number | null {
    const path = `${this.#parts.directory}/mosquitto.db`;
    return isFile(path) ? Deno.statSync(path).ino : null;
  }

  async #writePasswords(users: BrokerOptions["users"]): Promise<void> {
    const { user, directory } = this.#parts;
    if (users === undefined) {
      return;
    }
    const program = requireProgram("mosquitto_passwd");
    const path = `${directory}/passwords`;
    writePrivateFile(user, path, "");
    for (const [name, password] of Object.entries(users)) {
      await runSuccessfully(program, { args: ["-b", path, name, password], ...user });
    }
  }

  #writeConfig(): void {
    const { options, user, directory } = this.#parts;
    const lines = [
      "log_dest stderr",
      "log_timestamp false",
      `persistence ${options.persistence ?? true}`,
      `persistence_location ${directory}/`,
      `max_queued_messages ${options.maxQueuedMessages ?? 0}`,
      ...optionalLine("max_inflight_messages", options.maxInflightMessages),
      ...optionalLine("acl_file", options.acl && `${directory}/acl`),
      ...optionalLine("password_file", options.users && `${directory}/passwords`),
      `allow_anonymous ${options.users === undefined}`,
      `listener ${this.#port} ${this.host}`,
      ...optionalLine("max_qos", options.maxQos),
      ...options.config ?? [],
    ];
    writePrivateFile(user, `${directory}/mosquitto.conf`, lines.join("\n") + "\n");
  }
}

function optionalLine(name: string, value: string | number | undefined): string[] {
  return value === undefined ? [] : [`${name} ${value}`];
}
