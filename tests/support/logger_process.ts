/**
 * Runs the program under test in a separate process: from the sources, or the compiled binary that
 * `KRAKEN_LOGGER_BINARY` names.
 */
import { fileURLToPath } from "node:url";
import { RUN_FLAGS } from "../../deploy/run_flags.ts";
import { type ProcessEnd, type ProgramResult, runProgram, TestProcess } from "./process.ts";
import type { SqlTarget } from "./sql.ts";

/** Environment of the program under test, complete except for `PATH`. */
export type LoggerEnv = Readonly<Record<string, string>>;

/** How {@linkcode startLogger} starts the program. */
export interface LoggerOptions {
  /** Command line; none by default. */
  readonly args?: readonly string[];
  /** Working directory; a temporary one, removed at disposal, by default. */
  readonly cwd?: string;
  /** Directory of other sources to run, never the binary; those of the project by default. */
  readonly sources?: string;
}

/** The services that {@linkcode loggerEnv} connects the program to. */
export interface LoggerServices {
  readonly database: { readonly logger: SqlTarget };
  readonly broker: { readonly host: string; readonly port: number };
}

const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
// Deno needs these to find its cache, and to fill it from the registry of the user.
const DENO_VARIABLES = ["HOME", "XDG_CACHE_HOME", "DENO_DIR", "DENO_CERT", "DENO_TLS_CA_STORE"];
const REGISTRY_VARIABLES = ["NPM_CONFIG_REGISTRY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"];

/** The variables that connect the program to the services, with the role of the logger. */
export function loggerEnv(
  { database, broker }: LoggerServices,
  overrides: LoggerEnv = {},
): LoggerEnv {
  const { host, port, user, password, database: name } = database.logger;
  return {
    DATABASE_HOST: host,
    DATABASE_PORT: String(port),
    DATABASE_USER: user,
    DATABASE_PASSWORD: password,
    DATABASE_NAME: name,
    MQTT_HOST: broker.host,
    MQTT_PORT: String(broker.port),
    MQTT_CLIENT_ID: "kraken-logger-test",
    ...overrides,
  };
}

/** The program under test as a process. The caller disposes it, which kills it. */
export class LoggerProcess implements AsyncDisposable {
  readonly #process: TestProcess;
  readonly #temporary: string | null;

  /** Use {@linkcode startLogger}. */
  constructor(process: TestProcess, temporary: string | null) {
    this.#process = process;
    this.#temporary = temporary;
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** Lines of stdout and stderr in the order in which they were read. */
  get lines(): readonly string[] {
    return this.#process.lines;
  }

  get isRunning(): boolean {
    return this.#process.isRunning;
  }

  /** Resolves when the process has ended, for any reason. */
  get exited(): Promise<ProcessEnd> {
    return this.#process.exited;
  }

  /** Waits for a line of output; see `TestProcess.waitForLine`. */
  async waitForLine(...args: Parameters<TestProcess["waitForLine"]>): Promise<string> {
    return await this.#process.waitForLine(...args);
  }

  /** Sends any signal, such as SIGSTOP, SIGCONT or SIGHUP. */
  signal(signal: Deno.Signal): void {
    this.#process.kill(signal);
  }

  /** Sends a signal to stop, and waits for the end of the program; returns its exit status. */
  async stop(signal: Deno.Signal = "SIGTERM"): Promise<number> {
    this.#process.kill(signal);
    return (await this.#process.finished()).code;
  }

  /** Kills the program with SIGKILL, and waits for its end. */
  async kill(): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#process.finished();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process[Symbol.asyncDispose]();
    if (this.#temporary !== null) {
      Deno.removeSync(this.#temporary, { recursive: true });
    }
  }
}

/** Starts the program, without waiting for any output. */
export function startLogger(env: LoggerEnv, options: LoggerOptions = {}): LoggerProcess {
  const temporary = options.cwd === undefined ? makeWorkingDirectory() : null;
  const target = programUnderTest(options.sources);
  const process = TestProcess.start(target.program, {
    args: [...target.args, ...options.args ?? []],
    cwd: options.cwd ?? temporary ?? ROOT,
    env: environment(env, target),
    clearEnv: true,
  });
  return new LoggerProcess(process, temporary);
}

/** Runs the program to its end with a command line such as `["check"]`, and returns its output. */
export async function runLogger(
  args: readonly string[],
  env: LoggerEnv = {},
): Promise<ProgramResult> {
  const cwd = makeWorkingDirectory();
  try {
    const command = loggerCommand(args, env);
    return await runProgram(command.program, { ...command, cwd, clearEnv: true });
  } finally {
    Deno.removeSync(cwd, { recursive: true });
  }
}

/** A program with its arguments and environment. */
export interface LoggerCommand {
  readonly program: string;
  readonly args: readonly string[];
  readonly env: LoggerEnv;
}

/** The command that {@linkcode runLogger} runs, for a test that starts it differently. */
export function loggerCommand(args: readonly string[], env: LoggerEnv = {}): LoggerCommand {
  const target = programUnderTest();
  return {
    program: target.program,
    args: [...target.args, ...args],
    env: environment(env, target),
  };
}

interface Program {
  readonly program: string;
  /** Arguments before those of the logger. */
  readonly args: readonly string[];
  /** Variables of this process that are passed on, in addition to those of the test. */
  readonly variables: readonly string[];
}

function programUnderTest(sources?: string): Program {
  const binary = Deno.env.get("KRAKEN_LOGGER_BINARY");
  if (binary && sources === undefined) {
    return { program: Deno.realPathSync(binary), args: [], variables: ["PATH"] };
  }
  const root = sources ?? ROOT;
  const flags = ["run", "--quiet", "--no-prompt", "--config", `${root}/deno.json`];
  return {
    program: Deno.execPath(),
    args: [...flags, ...RUN_FLAGS, `${root}/main.ts`],
    variables: ["PATH", ...DENO_VARIABLES, ...REGISTRY_VARIABLES],
  };
}

function environment(env: LoggerEnv, { variables }: Program): Record<string, string> {
  const passed = variables.flatMap((name) => {
    const value = Deno.env.get(name);
    return value === undefined ? [] : [[name, value] as const];
  });
  return { ...Object.fromEntries(passed), NO_COLOR: "1", ...env };
}

function makeWorkingDirectory(): string {
  return Deno.makeTempDirSync({ prefix: "kraken-test-" });
}
