/**
 * `deno task soak`: runs the logger under a steady load and random faults for a chosen time, and
 * compares the table with the published readings.
 */
import { requireProgram } from "../support/programs.ts";
import { within } from "../support/poll.ts";
import { drainAndCompare } from "./comparison.ts";
import { LEFT_OUT } from "./faults.ts";
import { Injection } from "./injection.ts";
import { HELP, parseOptions, type SoakOptions } from "./options.ts";
import { heal, openStage, type Stage } from "./stage.ts";
import { formatSummary, isClean } from "./summary.ts";
import { print, printError } from "../support/output.ts";

/** Time between two lines of progress. */
const PROGRESS_MS = 10_000;

/** Returns whether every reading was stored exactly once and there were no other problems. */
async function soak({ minutes, seed, rate, binary }: SoakOptions): Promise<boolean> {
  if (binary !== undefined) Deno.env.set("KRAKEN_LOGGER_BINARY", binary);
  const startMs = performance.now();
  const progress = (text: string): void =>
    printError(`${((performance.now() - startMs) / 1000).toFixed(0).padStart(5)} s  ${text}\n`);
  using interruption = new Interruption();
  progress(`Starting; --seed ${seed} repeats these faults`);
  await using resources = new AsyncDisposableStack();
  const { signal } = interruption;
  const stage = await openStage(resources, { seed, rate, signal }).catch((error) => {
    // Services that are starting when Ctrl-C comes end by themselves.
    throw signal.aborted ? new Error("interrupted before anything was published") : error;
  });
  progress("Publishing, and injecting faults");
  const injection = new Injection(stage, { minutes, seed });
  const timer = setInterval(() => {
    reportProgress(stage, { injection, progress }).catch((error) => progress(String(error)));
  }, PROGRESS_MS);
  try {
    await injection.run();
  } finally {
    clearInterval(timer);
  }
  progress(`${signal.aborted ? "Interrupted" : "No more faults"}: waiting for the last readings`);
  await heal(stage);
  const faultMinutes = ((performance.now() - startMs) / 60_000).toFixed(1);
  const outcome = await drainAndCompare(stage);
  const { load, logger, postgres } = stage;
  const result = {
    title: `${faultMinutes} minutes, ${rate} readings/s, seed ${seed}, ` +
      `${describeLogger()}, PostgreSQL ${postgres.version}`,
    faults: injection.counts,
    leftOut: LEFT_OUT,
    overlaps: injection.overlaps,
    published: { readings: load.readings, noise: load.noise, repetitions: load.repetitions },
    loggers: logger,
    sums: logger.sums,
    outcome,
    problems: [...injection.problems, ...logger.problems],
  };
  print(formatSummary(result));
  return isClean(result);
}

interface ProgressOptions {
  readonly injection: Injection;
  readonly progress: (text: string) => void;
}

async function reportProgress(
  { database, load }: Stage,
  { injection, progress }: ProgressOptions,
): Promise<void> {
  // The database may be unavailable or frozen.
  const rows = await within(database.countReadings().catch(() => undefined), 1_000);
  progress(
    `${load.readings} readings published, ${rows ?? "an unknown number"} stored; ` +
      `${injection.total} faults, current: ${injection.current ?? "none"}`,
  );
}

function describeLogger(): string {
  const binary = Deno.env.get("KRAKEN_LOGGER_BINARY");
  return binary ? `logger '${binary}'` : `logger from the sources, Deno ${Deno.version.deno}`;
}

/**
 * Handles SIGINT and similar signals: the first requests an early end, the second exits at once.
 */
class Interruption implements Disposable {
  readonly #controller = new AbortController();
  readonly #listener = (): void => {
    if (this.#controller.signal.aborted) Deno.exit(1);
    this.#controller.abort();
  };

  constructor() {
    for (const name of SIGNALS) Deno.addSignalListener(name, this.#listener);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    for (const name of SIGNALS) Deno.removeSignalListener(name, this.#listener);
  }
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

async function main(args: readonly string[]): Promise<number> {
  try {
    const options = parseOptions(args);
    if (options === null) {
      print(HELP);
      return 0;
    }
    requireProgram("mosquitto");
    return await soak(options) ? 0 : 1;
  } catch (error) {
    printError(`soak: ${error instanceof Error ? error.message : error}\n`);
    return 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
