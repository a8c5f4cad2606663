/**
 * A limit to the memory of a process, as containers have it: a control group, which root may make
 * where the system lets it, of version 1 or 2. See cgroups(7).
 */

/** A limit, in force for the processes that were added. Disposed when these have ended. */
export interface MemoryLimit extends Disposable {
  /** Puts a process under the limit; to be called as soon as it is there. */
  add(pid: number): void;
  /** The most that its processes had at a time, in bytes; the file system's cache is included. */
  peakBytes(): number;
  /** How often the system has ended a process that wanted more. */
  countKills(): number;
}

interface Version {
  readonly root: string;
  readonly limit: string;
  readonly peak: string;
  readonly kills: string;
}

const VERSIONS: readonly Version[] = [{
  root: "/sys/fs/cgroup/memory",
  limit: "memory.limit_in_bytes",
  peak: "memory.max_usage_in_bytes",
  kills: "memory.oom_control",
}, {
  root: "/sys/fs/cgroup",
  limit: "memory.max",
  peak: "memory.peak",
  kills: "memory.events",
}];

/** Makes a control group with a limit; null where that is not possible. */
export function limitMemory(bytes: number): MemoryLimit | null {
  for (const version of VERSIONS) {
    const path = `${version.root}/kraken-test-${crypto.randomUUID().slice(0, 8)}`;
    try {
      Deno.mkdirSync(path);
    } catch {
      continue; // Not this version, not root, or a container that may not.
    }
    try {
      Deno.writeTextFileSync(`${path}/${version.limit}`, String(bytes), { create: false });
      Deno.readTextFileSync(`${path}/${version.peak}`);
      return openLimit(path, version);
    } catch {
      Deno.removeSync(path); // The directory is one, but not for memory.
    }
  }
  return null;
}

function openLimit(path: string, { peak, kills }: Version): MemoryLimit {
  const read = (name: string): string => Deno.readTextFileSync(`${path}/${name}`);
  return {
    add: (pid) => Deno.writeTextFileSync(`${path}/cgroup.procs`, String(pid), { create: false }),
    peakBytes: () => Number(read(peak)),
    countKills: () => Number(/^oom_kill (\d+)$/m.exec(read(kills))?.[1] ?? 0),
    [Symbol.dispose]: () => Deno.removeSync(path),
  };
}

/** The most memory that a running process had at a time, without the file system's cache. */
export function readPeakBytes(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(/^VmHWM:\s*(\d+) kB$/m.exec(status)?.[1]) * 1024;
}
