/** CPU time and memory of processes, from `/proc` (proc(5)). */

/** Unit of the times in `/proc/PID/stat`; a constant of Linux's interface. */
const TICKS_PER_SECOND = 100;

interface Stat {
  readonly name: string;
  readonly parent: number;
  /** Of the process and its ended children. */
  readonly cpuSeconds: number;
}

/**
 * CPU time of a process and all its descendants, including ended ones.
 *
 * @returns seconds; they never decrease while the process runs.
 */
export function cpuSeconds(pid: number): number {
  const stats = readStats();
  const tree = [pid];
  let sum = 0;
  for (const member of tree) {
    sum += stats.get(member)?.cpuSeconds ?? 0;
    tree.push(...[...stats].filter(([, { parent }]) => parent === member).map(([id]) => id));
  }
  return sum;
}

/** The peak resident memory of a process in bytes (`VmHWM`). */
export function peakMemoryBytes(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
  if (kibibytes === undefined) throw new Error(`Reading the memory of process ${pid}: no VmHWM`);
  return Number(kibibytes) * 1024;
}

/**
 * The id of the child process of this process with the given name.
 *
 * @throws {Error} when there is none.
 */
export function findChild(name: string): number {
  for (const [pid, stat] of readStats()) {
    if (stat.name === name && stat.parent === Deno.pid) return pid;
  }
  throw new Error(`Looking for the process of '${name}': not running`);
}

function readStats(): Map<number, Stat> {
  const stats = new Map<number, Stat>();
  for (const { name } of Deno.readDirSync("/proc")) {
    const stat = /^\d+$/.test(name) ? readStat(name) : undefined;
    if (stat !== undefined) stats.set(Number(name), stat);
  }
  return stats;
}

function readStat(pid: string): Stat | undefined {
  let text;
  try {
    text = Deno.readTextFileSync(`/proc/${pid}/stat`);
  } catch {
    // The process has ended since the directory was listed.
    return undefined;
  }
  // The name is in parentheses, and may contain parentheses itself.
  const end = text.lastIndexOf(")");
  const fields = text.slice(end + 2).split(" ").map(Number);
  const [utime = 0, stime = 0, childrenUtime = 0, childrenStime = 0] = fields.slice(11, 15);
  return {
    name: text.slice(text.indexOf("(") + 1, end),
    parent: fields[1] ?? 0,
    cpuSeconds: (utime + stime + childrenUtime + childrenStime) / TICKS_PER_SECOND,
  };
}
