/**
 * Limits the memory of a process like a container: with a control group of version 1 or 2, which
 * root can create if the system permits it (cgroups(7)).
 */

/** A memory limit for the added processes. Dispose it after they have ended. */
export interface MemoryLimit extends Disposable {
  /** Applies the limit to a process. Call it right after the start of the process. */
  add(pid: number): void;
  /** The peak memory of its processes in bytes, including the page cache. */
  peakBytes(): number;
  /** How often the system has killed a process that exceeded the limit. */
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

/** Creates a control group with a limit; null if that is not possible. */
export function limitMemory(bytes: number): MemoryLimit | null {
  for (const version of VERSIONS) {
    const path = `${version.root}/kraken-test-${crypto.randomUUID().slice(0, 8)}`;
    try {
      Deno.mkdirSync(path);
    } catch {
      continue; // Another version, not root, or a container without permission.
    }
    try {
      Deno.writeTextFileSync(`${path}/${version.limit}`, String(bytes), { create: false });
      Deno.readTextFileSync(`${path}/${version.peak}`);
      return openLimit(path, version);
    } catch {
      Deno.removeSync(path); // A control group, but without the memory controller.
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

/** The peak memory of a running process, without the page cache. */
export function readPeakBytes(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(/^VmHWM:\s*(\d+) kB$/m.exec(status)?.[1]) * 1024;
}
