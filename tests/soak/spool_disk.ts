/** A separate file system for the spool, which can be filled and made read-only. */
import { DatabaseSync } from "node:sqlite";
import { mountSmallDisk } from "../faults/small_disk.ts";
import { SPOOL_FILE } from "../faults/spool_file.ts";
import { runSuccessfully } from "../support/process.ts";

/** Space for the messages of the longest fault, and for the maximum of rejected messages. */
const SIZE = "64M";

/** The file system. */
export interface SpoolDisk extends AsyncDisposable {
  /** The directory of the spool. */
  readonly path: string;
  /** Fills the disk completely, until `heal`. */
  fill(): void;
  /** Makes it read-only for newly opened files, until `heal`. */
  makeReadOnly(): Promise<void>;
  /** Ends both faults. */
  heal(): Promise<void>;
}

/** Mounts it. The caller disposes it when it is no longer in use. */
export async function mountSpoolDisk(): Promise<SpoolDisk> {
  const disk = await mountSmallDisk({ ownerOf: "/" });
  const { path } = disk;
  let isFull = false;
  let isReadOnly = false;
  const heal = async (): Promise<void> => {
    if (isFull) disk.empty();
    isFull = false;
    // A lazy unmount, because the logger may have a file open.
    if (isReadOnly) await runSuccessfully("umount", { args: ["--lazy", path] });
    isReadOnly = false;
  };
  await remount(Deno.realPathSync(`${path}/..`), `size=${SIZE}`);
  return {
    path,
    fill(): void {
      isFull = true;
      disk.fill();
    },
    async makeReadOnly(): Promise<void> {
      await runSuccessfully("mount", { args: ["--bind", path, path] });
      isReadOnly = true;
      await remount(path, "bind,ro");
    },
    heal,
    async [Symbol.asyncDispose](): Promise<void> {
      await heal();
      await disk[Symbol.asyncDispose]();
    },
  };
}

/** Payloads of the last rejected messages in the spool of a directory. */
export function readRejected(directory: string, { last }: { readonly last: number }): Set<string> {
  const database = new DatabaseSync(`${directory}/${SPOOL_FILE}`, { readOnly: true });
  try {
    database.exec("PRAGMA busy_timeout = 5000");
    const rows = database.prepare("SELECT payload FROM rejected ORDER BY id DESC LIMIT ?").all(
      last,
    );
    const decoder = new TextDecoder();
    return new Set(rows.map(({ payload }) => decoder.decode(payload as Uint8Array)));
  } finally {
    database.close();
  }
}

async function remount(mountPoint: string, options: string): Promise<void> {
  await runSuccessfully("mount", { args: ["-o", `remount,${options}`, mountPoint] });
}
