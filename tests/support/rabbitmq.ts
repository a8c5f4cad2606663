/**
 * A real RabbitMQ with its MQTT plugin for tests, on free ports, with its store in a temporary
 * directory and the settings that docs/brokers.md recommends.
 */
import { connect } from "node:net";
import type { BrokerAddress } from "./mqtt_client.ts";
import { readCodeBlocks, readSection } from "./documents.ts";
import { waitUntil } from "./poll.ts";
import { findFreePort, LOOPBACK } from "./ports.ts";
import { runSuccessfully, TestProcess } from "./process.ts";
import { type TemporaryDirectory, withTemporaryDirectory } from "./temporary_directory.ts";
import { dirname } from "node:path";
import { requireProgram } from "./programs.ts";

/** Erlang and its applications take some seconds to start. */
const TIMEOUT_MS = 180_000;

/** Starts RabbitMQ and waits until it accepts connections. The caller disposes it. */
export async function startRabbitMq(): Promise<RabbitMqBroker> {
  const broker = new RabbitMqBroker();
  try {
    await broker.start();
    return broker;
  } catch (error) {
    await broker[Symbol.asyncDispose]();
    throw error;
  }
}

/** RabbitMQ under the control of a test. Its port stays the same across restarts. */
export class RabbitMqBroker implements BrokerAddress, AsyncDisposable {
  readonly host: string = LOOPBACK;
  readonly port: number = findFreePort();
  /** The plugin itself allows more messages in flight. */
  readonly receiveMaximum = 20;
  readonly #directory: TemporaryDirectory = withTemporaryDirectory();
  readonly #distPort: number = findFreePort();
  /** Port of epmd, the name service of Erlang's nodes. */
  readonly #daemonPort: number = findFreePort();
  #process: TestProcess | undefined;

  /** Starts for the first time, or again after `stop` or `kill`, with all sessions and messages kept. */
  async start(): Promise<void> {
    const program = requireProgram("rabbitmq-server");
    const { path } = this.#directory;
    Deno.writeTextFileSync(`${path}/plugins`, "[rabbitmq_mqtt].\n");
    Deno.writeTextFileSync(
      `${path}/rabbit.conf`,
      [
        "listeners.tcp = none",
        `mqtt.listeners.tcp.default = ${this.host}:${this.port}`,
        "mqtt.allow_anonymous = true",
        "log.console = true",
        "log.file = false",
        ...readRecommendedSettings(),
      ].join("\n") + "\n",
    );
    this.#process = TestProcess.start(program, { clearEnv: true, env: this.#env });
    const running = this.#process;
    await waitUntil(async () => {
      if (!running.isRunning) {
        throw new Error(`Starting RabbitMQ: it has exited:\n${running.tail()}`);
      }
      return await isListening(this.host, this.port);
    }, { what: "RabbitMQ", timeoutMs: TIMEOUT_MS, intervalMs: 200 });
  }

  /** The environment of the server and of the programs that manage it. */
  get #env(): Record<string, string> {
    const { path } = this.#directory;
    return {
      PATH: "/usr/sbin:/usr/bin:/bin",
      HOME: path,
      RABBITMQ_NODENAME: `kraken${this.port}@localhost`,
      RABBITMQ_MNESIA_BASE: `${path}/mnesia`,
      RABBITMQ_LOG_BASE: `${path}/log`,
      RABBITMQ_ENABLED_PLUGINS_FILE: `${path}/plugins`,
      RABBITMQ_CONFIG_FILE: `${path}/rabbit`,
      RABBITMQ_PID_FILE: `${path}/pid`,
      RABBITMQ_CONF_ENV_FILE: "/dev/null",
      RABBITMQ_DIST_PORT: String(this.#distPort),
      ERL_EPMD_PORT: String(this.#daemonPort),
      ERL_EPMD_ADDRESS: LOOPBACK,
    };
  }

  /** Runs the commands of docs/brokers.md that create a user, as they are printed. */
  async createDocumentedUser(): Promise<void> {
    const script = readCodeBlocks(readSection("docs/brokers.md", "RabbitMQ"), "sh").join("");
    const programs = `${this.#directory.path}/programs`;
    Deno.mkdirSync(programs, { recursive: true });
    Deno.writeTextFileSync(`${programs}/sudo`, '#!/bin/sh\nexec "$@"\n', { mode: 0o755 });
    const sbin = dirname(requireProgram("rabbitmq-server"));
    await runSuccessfully("/bin/sh", {
      args: ["-euc", script],
      clearEnv: true,
      env: { ...this.#env, PATH: `${programs}:${sbin}:${this.#env["PATH"]}` },
    });
  }

  /** Stops it cleanly: sessions and queued messages are kept. */
  async stop(): Promise<void> {
    if (this.#process?.isRunning) this.#process.kill("SIGTERM");
    await this.#process?.exited;
  }

  /** Kills it with SIGKILL: data on its disk are kept, and all confirmed messages must be there. */
  async kill(): Promise<void> {
    await this.#process?.killTree("SIGKILL");
    await this.#process?.finished();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await this.#process?.[Symbol.asyncDispose]();
    // Otherwise epmd would outlive the broker.
    const daemon = TestProcess.start(requireProgram("epmd"), {
      args: ["-kill"],
      env: { ERL_EPMD_PORT: String(this.#daemonPort) },
    });
    await daemon.exited;
    await daemon[Symbol.asyncDispose]();
    this.#directory[Symbol.dispose]();
  }
}

/**
 * The settings for RabbitMQ that docs/brokers.md recommends.
 *
 * @throws {Error} when the document no longer contains such settings.
 */
function readRecommendedSettings(): string[] {
  const [settings] = readCodeBlocks(readSection("docs/brokers.md", "RabbitMQ"), "ini")
    .filter((text) => text.includes("mqtt."));
  if (settings === undefined) throw new Error("docs/brokers.md has no settings for RabbitMQ");
  return settings.trimEnd().split("\n");
}

function isListening(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const finish = (listens: boolean) => (): void => {
      socket.destroy();
      resolve(listens);
    };
    socket.once("connect", finish(true));
    socket.once("error", finish(false));
  });
}
