/**
 * A small file system that a test can fill, for a full disk. It requires the permission to mount,
 * which root has; in a container, it must be granted.
 */
import { leaveOut } from "../support/left_out.ts";
import { runSuccessfully } from "../support/process.ts";

/** The bit of CAP_SYS_ADMIN, see capabilities(7). */
const MOUNT_CAPABILITY = 1n << 21n;

/** Whether the tests may mount a file system. */
export function canMount(): boolean {
  const [, effective] = /^CapEff:\s*([0-9a-f]+)$/m.exec(
    Deno.readTextFileSync("/proc/self/status"),
  ) ?? [];
  return (BigInt(`0x${effective ?? 0}`) & MOUNT_CAPABILITY) !== 0n;
}

/**
 * Whether a test must be skipped because it may not mount, for `ignore`. In CI, the test is not
 * skipped and fails.
 */
export function lacksMount(): boolean {
  return !canMount() && Deno.env.get("CI") !== "true" &&
    leaveOut("this user may not mount a file system");
}

const SIZE_BYTES = 4 * 1024 * 1024;

/** A small file system. Its directory `path` is empty at first, and belongs to the service. */
export interface SmallDisk extends AsyncDisposable {
  readonly path: string;
  /** Fills it to the last byte. */
  fill(): void;
  /** Removes what `fill` wrote. */
  empty(): void;
}

/**
 * Mounts one, owned by the owner of another path. Disposing it unmounts and removes it.
 */
export async function mountSmallDisk(options: { readonly ownerOf: string }): Promise<SmallDisk> {
  const mountPoint = Deno.makeTempDirSync({ prefix: "kraken-test-" });
  const run = async (program: string, ...args: readonly string[]): Promise<void> => {
    await runSuccessfully(program, { args });
  };
  try {
    await run("mount", "-t", "tmpfs", "-o", `size=${SIZE_BYTES},mode=0755`, "tmpfs", mountPoint);
  } catch (error) {
    Deno.removeSync(mountPoint);
    throw error;
  }
  const path = `${mountPoint}/data`;
  const ballast = `${mountPoint}/ballast`;
  const { uid, gid } = Deno.statSync(options.ownerOf);
  Deno.mkdirSync(path, { mode: 0o700 });
  Deno.chownSync(path, uid, gid);
  return {
    path,
    fill(): void {
      using file = Deno.openSync(ballast, { write: true, create: true });
      const page = new Uint8Array(4096);
      try {
        while (true) file.writeSync(page);
      } catch (error) {
        if ((error as { code?: string }).code !== "ENOSPC") throw error;
      }
    },
    empty: () => Deno.removeSync(ballast),
    async [Symbol.asyncDispose](): Promise<void> {
      await run("umount", mountPoint);
      Deno.removeSync(mountPoint);
    },
  };
}
