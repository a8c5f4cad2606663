/**
 * Child processes for the tests. Their output is collected line by line, and they can be killed with
 * any signal. Disposal leaves neither a process nor an open pipe.
 */
import { TextLineStream } from "./text_lines.ts";
import { waitUntil, within } from "./poll.ts";

/** How {@linkcode TestProcess.start} starts a program. */
export interface ProcessOptions {
  readonly args?: readonly string[];
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** `true`: the environment of the child is `env` alone. */
  readonly clearEnv?: boolean;
  /** Numeric user to run as; needs root. */
  readonly uid?: number;
  /** Numeric group to run as; needs root. */
  readonly gid?: number;
}

/** How a process ended; `signal` is null if no signal ended it. */
export interface ProcessEnd {
  readonly code: number;
  readonly signal: Deno.Signal | null;
}

/** How {@linkcode TestProcess.waitForLine} waits. */
export interface LineOptions {
  /** Gives up after this time; 60,000 by default. */
  readonly timeoutMs?: number;
  /** Index in `lines` of the first line to check; 0 by default. */
  readonly from?: number;
}

interface LineWaiter {
  readonly matches: (line: string) => boolean;
  readonly resolve: (line: string | undefined) => void;
}

/** A running or ended child process. The caller owns and disposes it. */
export class TestProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #name: string;
  readonly #readers: Promise<void>;
  readonly #cancel = new AbortController();
  readonly #waiters = new Set<LineWaiter>();
  readonly #lines: string[] = [];
  readonly #stdout: string[] = [];
  readonly #stderr: string[] = [];
  #end: ProcessEnd | undefined;

  /** Resolves when the process has ended, for any reason; never rejects. */
  readonly exited: Promise<ProcessEnd>;

  /**
   * Starts a program, and does not wait for it.
   *
   * @throws {Deno.errors.NotFound} when the program does not exist.
   */
  static start(program: string, options: ProcessOptions = {}): TestProcess {
    return new TestProcess(program, options);
  }

  private constructor(program: string, options: ProcessOptions) {
    const { args = [], ...rest } = options;
    this.#name = program.slice(program.lastIndexOf("/") + 1);
    this.#child = new Deno.Command(program, {
      ...rest,
      args: [...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.exited = this.#awaitEnd();
    this.#readers = Promise.all([
      this.#collect(this.#child.stdout, this.#stdout),
      this.#collect(this.#child.stderr, this.#stderr),
    ]).then(() => this.#releaseWaiters());
  }

  get pid(): number {
    return this.#child.pid;
  }

  get isRunning(): boolean {
    return this.#end === undefined;
  }

  /** Lines of both streams in the order in which they were read. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  get stdoutLines(): readonly string[] {
    return this.#stdout;
  }

  get stderrLines(): readonly string[] {
    return this.#stderr;
  }

  /** Sends a signal to the process only. Does nothing if it has ended. */
  kill(signal: Deno.Signal = "SIGTERM"): void {
    if (this.isRunning) {
      sendSignal(this.pid, signal);
    }
  }

  /**
   * Sends a signal to the process and to all its descendants.
   *
   * SIGKILL also reaches processes that are being forked at that moment; this resolves only when none
   * of them is left.
   */
  async killTree(signal: Deno.Signal): Promise<void> {
    if (!this.isRunning) {
      return;
    }
    if (signal !== "SIGKILL") {
      signalTree(this.pid, signal);
      return;
    }
    // Stopped processes do not fork, so the list is complete when it no longer grows.
    const pids = signalTree(this.pid, "SIGSTOP");
    pids.forEach((pid) => sendSignal(pid, "SIGKILL"));
    await this.exited;
    await waitUntil(() => !pids.some(isAlive), {
      what: `the end of the children of ${this.#name}`,
    });
  }

  /**
   * Waits for a line of output; lines that were already read count.
   *
   * @returns the line.
   * @throws {Error} at the deadline, or as soon as the process has ended without that line; the
   * message contains the last lines of output.
   */
  async waitForLine(pattern: string | RegExp, options: LineOptions = {}): Promise<string> {
    const { timeoutMs = 60_000, from = 0 } = options;
    const matches = (line: string): boolean =>
      typeof pattern === "string" ? line.includes(pattern) : line.search(pattern) >= 0;
    const earlier = this.#lines.slice(from).find(matches);
    if (earlier !== undefined) {
      return earlier;
    }
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    const waiter: LineWaiter = { matches, resolve };
    this.#waiters.add(waiter);
    const outputEnd = this.#readers.then(() => undefined);
    const line = await within(Promise.race([promise, outputEnd]), timeoutMs);
    this.#waiters.delete(waiter);
    if (line === undefined) {
      const state = this.isRunning ? `not there after ${timeoutMs} ms` : this.#describeEnd();
      throw new Error(
        `Waiting for a line ${pattern} of ${this.#name}: ${state}, output:\n${this.tail()}`,
      );
    }
    return line;
  }

  /** The last lines of output, for messages. */
  tail(count: number = 30): string {
    return this.#lines.slice(-count).join("\n");
  }

  /** Waits until the process has ended and all its output has been read. */
  async finished(): Promise<ProcessEnd> {
    const end = await this.exited;
    // A grandchild that survived keeps the pipes open: do not wait for it forever.
    await within(this.#readers, 2_000);
    this.#cancel.abort();
    await this.#readers;
    return end;
  }

  /** Kills the process and its descendants, if it still runs, and closes the pipes. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.killTree("SIGKILL");
    await this.finished();
  }

  async #awaitEnd(): Promise<ProcessEnd> {
    const { code, signal } = await this.#child.status;
    this.#end = { code, signal };
    return this.#end;
  }

  async #collect(stream: ReadableStream<Uint8Array<ArrayBuffer>>, lines: string[]): Promise<void> {
    try {
      const texts = stream.pipeThrough(new TextDecoderStream(), { signal: this.#cancel.signal });
      for await (const line of texts.pipeThrough(new TextLineStream())) {
        lines.push(line);
        this.#lines.push(line);
        for (const waiter of this.#waiters) {
          if (waiter.matches(line)) {
            waiter.resolve(line);
          }
        }
      }
    } catch (error) {
      // Canceled by `finished`: the output that was read until then is complete.
      if (!this.#cancel.signal.aborted) {
        throw error;
      }
    }
  }

  #releaseWaiters(): void {
    this.#waiters.forEach((waiter) => waiter.resolve(undefined));
  }

  #describeEnd(): string {
    return this.#end?.signal ? `killed by ${this.#end.signal}` : `exited with ${this.#end?.code}`;
  }
}

/** The exit status and the output of a program that has ended. */
export interface ProgramResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. A failure of the program is a result, not an error. */
export async function runProgram(
  program: string,
  options: ProcessOptions = {},
): Promise<ProgramResult> {
  const { args = [], ...rest } = options;
  const output = await new Deno.Command(program, { ...rest, args: [...args], stdin: "null" })
    .output();
  const decoder = new TextDecoder();
  return {
    code: output.code,
    stdout: decoder.decode(output.stdout),
    stderr: decoder.decode(output.stderr),
  };
}

/**
 * Runs a program that must succeed.
 *
 * @returns its standard output.
 * @throws {Error} when its exit status is not 0; the message contains its output.
 */
export async function runSuccessfully(
  program: string,
  options: ProcessOptions = {},
): Promise<string> {
  const { code, stdout, stderr } = await runProgram(program, options);
  if (code !== 0) {
    throw new Error(`Running '${program}': exit status ${code}, output:\n${stdout}${stderr}`);
  }
  return stdout;
}

/** Signals a process and its descendants until no new ones appear; returns the ids of all. */
function signalTree(root: number, signal: Deno.Signal): number[] {
  const done = new Set<number>();
  let pending = [root];
  while (pending.length > 0) {
    for (const pid of pending) {
      sendSignal(pid, signal);
      done.add(pid);
    }
    pending = listDescendants(root).filter((pid) => !done.has(pid));
  }
  return [...done];
}

/** The ids of all processes below the given one, from /proc. */
function listDescendants(root: number): number[] {
  const children = new Map<number, number[]>();
  for (const { name } of Deno.readDirSync("/proc")) {
    const parent = /^\d+$/.test(name) ? readStat(Number(name))?.parent : undefined;
    if (parent !== undefined) {
      children.set(parent, [...children.get(parent) ?? [], Number(name)]);
    }
  }
  const found = [...children.get(root) ?? []];
  for (const pid of found) {
    found.push(...children.get(pid) ?? []);
  }
  return found;
}

/** State letter and parent of a process; `undefined` if it has ended. */
function readStat(pid: number): { readonly state: string; readonly parent: number } | undefined {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    // The second field, the name of the program, may contain spaces and brackets.
    const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { state: state ?? "", parent: Number(parent) };
  } catch {
    // The process has ended between listing and reading (ENOENT, ESRCH).
    return undefined;
  }
}

/**
 * Whether a process, a child or not, still runs. A zombie does not count: not every init process of a
 * container reaps orphans.
 */
export function isAlive(pid: number): boolean {
  const stat = readStat(pid);
  return stat !== undefined && stat.state !== "Z" && stat.state !== "X";
}

function sendSignal(pid: number, signal: Deno.Signal): void {
  try {
    Deno.kill(pid, signal);
  } catch (error) {
    // The process has ended meanwhile, so the signal is no longer needed.
    if (!(error instanceof Deno.errors.NotFound) && !(error instanceof TypeError)) {
      throw error;
    }
  }
}
