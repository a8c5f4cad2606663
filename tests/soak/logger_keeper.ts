/**
 * The logger of the soak: one process after the other with the same settings, and what became of
 * them.
 */
import { type Counts, stopCleanly } from "../support/harness.ts";
import { type LoggerEnv, type LoggerProcess, startLogger } from "../support/logger_process.ts";

/** Sums over the loggers that ended when they were asked to, from their last lines. */
export type LoggerSums = Pick<Counts, "received" | "duplicates" | "redelivered" | "found">;

/** What a logger never says, whatever is killed, cut or full. */
const NEVER_SAID =
  /CRITICAL|defect|do not add up|is damaged|could not be read|Dropped a|were dropped/;

/** The lines of a logger that tell of something that must not happen. */
export function findComplaints(lines: readonly string[]): string[] {
  return lines.filter((line) => NEVER_SAID.test(line));
}

/** Keeps a logger. The caller disposes it. */
export class LoggerKeeper implements AsyncDisposable {
  readonly env: LoggerEnv;
  /** What should not have happened. */
  readonly problems: string[] = [];
  readonly #sums = { received: 0, duplicates: 0, redelivered: 0, found: 0 };
  #logger: LoggerProcess | undefined;
  #starts = 0;
  #cleanEnds = 0;

  constructor(env: LoggerEnv) {
    this.env = env;
  }

  get starts(): number {
    return this.#starts;
  }

  /** How many loggers have ended when they were asked to. */
  get cleanEnds(): number {
    return this.#cleanEnds;
  }

  get sums(): LoggerSums {
    return this.#sums;
  }

  get isRunning(): boolean {
    return this.#logger?.isRunning ?? false;
  }

  /** Lines of the one that runs, so far. */
  get lineCount(): number {
    return this.#current().lines.length;
  }

  /** Starts the next one, with further variables of its own; resolves at once. */
  start(env: LoggerEnv = {}): void {
    if (this.isRunning) throw new Error("Starting the logger: it runs already");
    this.#logger = startLogger({ ...this.env, ...env });
    this.#starts++;
  }

  /** Waits for a line of the one that runs, among all of its lines or those from a number on. */
  async waitForLine(pattern: string | RegExp, { from = 0 } = {}): Promise<void> {
    await this.#current().waitForLine(pattern, { timeoutMs: 60_000, from });
  }

  /** Whether the last one of the lines that match `topic` matches `statement` too. */
  lastSays(statement: RegExp, topic: RegExp): boolean {
    return statement.test(this.#current().lines.findLast((line) => topic.test(line)) ?? "");
  }

  /** @throws {Error} when it had ended by itself before. */
  async kill(): Promise<void> {
    const logger = this.#current();
    await logger.kill();
    await this.#finish(logger);
    const { code, signal } = await logger.exited;
    if (signal !== "SIGKILL") throw new Error(`Killing the logger: it has ended with ${code}`);
  }

  /** Asks it to end; returns its counts. A failure is a problem, and thrown. */
  async stop(): Promise<Counts> {
    const logger = this.#current();
    try {
      const counts = await stopCleanly(logger);
      this.#cleanEnds++;
      this.#sums.received += counts.received;
      this.#sums.duplicates += counts.duplicates;
      this.#sums.redelivered += counts.redelivered;
      this.#sums.found += counts.found;
      return counts;
    } catch (error) {
      this.problems.push(`Stopping the logger: ${error}`);
      throw error;
    } finally {
      await this.#finish(logger);
    }
  }

  /** Takes note of a logger that ended by itself; does nothing while it runs. */
  async notice({ isExpected }: { readonly isExpected: boolean }): Promise<void> {
    const logger = this.#logger;
    if (logger === undefined || logger.isRunning) return;
    const { code, signal } = await logger.exited;
    await this.#finish(logger);
    if (isExpected && code === 0) return;
    this.problems.push(
      `The logger has ended with ${signal ?? code}, output:\n${logger.lines.slice(-20).join("\n")}`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#logger?.[Symbol.asyncDispose]();
  }

  #current(): LoggerProcess {
    if (this.#logger === undefined) throw new Error("The logger does not run");
    return this.#logger;
  }

  async #finish(logger: LoggerProcess): Promise<void> {
    this.#logger = undefined;
    await logger[Symbol.asyncDispose]();
    const complaints = findComplaints(logger.lines);
    this.problems.push(...complaints.map((line) => `The logger said: ${line}`));
  }
}
