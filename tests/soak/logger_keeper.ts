/**
 * The logger of the soak: one process after another with the same settings, and their outcome.
 */
import { type Counts, stopCleanly } from "../support/harness.ts";
import { type LoggerEnv, type LoggerProcess, startLogger } from "../support/logger_process.ts";

/** Sums of the counts of the loggers that were stopped, from their last log lines. */
export type LoggerSums = Pick<Counts, "received" | "duplicates" | "redelivered" | "found">;

/** Log lines that must not occur under any fault. */
const NEVER_SAID =
  /CRITICAL|defect|do not add up|is damaged|Could not read|Dropped a|about dropped/;

/** The lines of a logger that must not occur. */
export function findComplaints(lines: readonly string[]): string[] {
  return lines.filter((line) => NEVER_SAID.test(line));
}

/** Keeps a logger. The caller disposes it. */
export class LoggerKeeper implements AsyncDisposable {
  readonly env: LoggerEnv;
  /** Unexpected events. */
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

  /** Number of loggers that ended after SIGTERM. */
  get cleanEnds(): number {
    return this.#cleanEnds;
  }

  get sums(): LoggerSums {
    return this.#sums;
  }

  get isRunning(): boolean {
    return this.#logger?.isRunning ?? false;
  }

  /** The lines of the running logger so far. */
  get lineCount(): number {
    return this.#current().lines.length;
  }

  /** Starts the next logger, with additional variables. Resolves at once. */
  start(env: LoggerEnv = {}): void {
    if (this.isRunning) throw new Error("Starting the logger: it runs already");
    this.#logger = startLogger({ ...this.env, ...env });
    this.#starts++;
  }

  /** Waits for a line of the running logger, among all its lines or those from a number on. */
  async waitForLine(pattern: string | RegExp, { from = 0 } = {}): Promise<void> {
    await this.#current().waitForLine(pattern, { timeoutMs: 60_000, from });
  }

  /** Whether the last line that matches `topic` also matches `statement`. */
  lastSays(statement: RegExp, topic: RegExp): boolean {
    return statement.test(this.#current().lines.findLast((line) => topic.test(line)) ?? "");
  }

  /** @throws {Error} when the logger had ended before. */
  async kill(): Promise<void> {
    const logger = this.#current();
    await logger.kill();
    await this.#finish(logger);
    const { code, signal } = await logger.exited;
    if (signal !== "SIGKILL") throw new Error(`Killing the logger: it has ended with ${code}`);
  }

  /** Stops the logger and returns its counts. A failure is recorded as a problem, and thrown. */
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

  /** Records the unexpected end of a logger; does nothing while it runs. */
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
    this.problems.push(...complaints.map((line) => `The logger logged: ${line}`));
  }
}
