/**
 * Kills a logger repeatedly under load, and compares the stored readings with the published ones.
 */
import assert from "node:assert/strict";
import type { LoggerProcess } from "../support/logger_process.ts";
import { delay, waitUntil } from "../support/poll.ts";
import { createRandom, expectStored } from "../support/readings.ts";
import { expectNothingLeft, type SharedPostgres, stopWhenDrained } from "../support/harness.ts";
import { isTransactionOpen, SPOOL_FILE, waitForSpooled } from "./spool_file.ts";
import { type Scene, setScene } from "./spool_scene.ts";
import { Storm, type Weather } from "./storm.ts";

/** How often the logger is killed, and the behavior of the database meanwhile. */
export interface KillOptions {
  readonly kills: number;
  /** The seed of the moments and of the behavior of the database. */
  readonly seed: number;
  /** `comes and goes` by default. */
  readonly weather?: Weather;
  /** Directory of the sources of the killed loggers; see `startLogger`. */
  readonly sources?: string;
}

/** Counts of the killed runs. */
export interface KilledRuns {
  readonly kills: number;
  /** Runs that had not connected to the broker yet. */
  readonly early: number;
  /** Early runs that had opened their spool. */
  readonly opening: number;
  /** Early runs whose predecessor had left an unfinished transaction in the spool. */
  readonly recovering: number;
  /** Runs that found messages in the spool. */
  readonly found: number;
  /** Runs that were killed while they wrote to the spool. */
  readonly interrupted: number;
}

/**
 * The moments of the kills, in turn: during a write to the spool, if one occurs soon; while the
 * next run opens the spool after such a kill; at any time after the start; and while storing.
 */
const MOMENTS = ["writing", "opening", "writing", "starting", "working"] as const;

/** No further run is started after this time, which is far more than a hundred runs need. */
const MAX_KILLING_MS = 300_000;

/**
 * Starts a logger and kills it at a random moment, `kills` times, under load. A last logger from
 * unchanged sources, which is not killed, stores the remaining readings.
 *
 * @throws {Error} when the table has not got every reading once; see `expectStored`.
 */
export async function killUnderLoad(
  postgres: SharedPostgres,
  options: KillOptions,
): Promise<KilledRuns> {
  const { seed, weather } = options;
  await using scene = await setScene(postgres);
  await using storm = new Storm(scene, { random: createRandom(seed + 1), rate: 300, weather });
  const runs = await killRepeatedly(scene, options);
  const readings = await storm.end();
  {
    await using logger = scene.startLogger();
    await stopWhenDrained(logger, scene.broker);
    expectNothingBroken(logger);
  }
  await using again = scene.startLogger();
  await waitForSpooled(scene.directory, 0);
  await expectNothingLeft(again, scene.broker);
  expectNothingBroken(again);
  await expectStored(scene.database, readings);
  return runs;
}

/** Adds up the counts of several scenes. */
export function sumRuns(all: readonly KilledRuns[]): KilledRuns {
  const sum = (name: keyof KilledRuns): number => all.reduce((sum, runs) => sum + runs[name], 0);
  return {
    kills: sum("kills"),
    early: sum("early"),
    opening: sum("opening"),
    recovering: sum("recovering"),
    found: sum("found"),
    interrupted: sum("interrupted"),
  };
}

/** Asserts that the logger reported neither a damaged spool nor wrong counts. */
export function expectNothingBroken(logger: LoggerProcess): void {
  assert.deepEqual(logger.lines.filter((line) => /CRITICAL|damaged|defect/.test(line)), []);
}

async function killRepeatedly(
  scene: Scene,
  { kills, seed, sources }: KillOptions,
): Promise<KilledRuns> {
  const random = createRandom(seed);
  const runs = [];
  const endMs = performance.now() + MAX_KILLING_MS;
  // The duration of a start, as measured so far.
  let startMs = 1000;
  while (runs.length < kills) {
    assert.ok(performance.now() < endMs, `only ${runs.length} kills in ${MAX_KILLING_MS} ms`);
    const isLeft = isTransactionOpen(scene.directory);
    const beginMs = performance.now();
    await using logger = scene.startLogger({}, sources === undefined ? {} : { sources });
    const moment = MOMENTS[runs.length % MOMENTS.length];
    if (moment === "starting") {
      await delay(random() * 1.5 * startMs);
    } else if (moment === "opening") {
      await waitUntil(() => hasSpoolOpen(logger, scene), { intervalMs: 1, what: "an open spool" });
      await delay(random() * 30);
    } else {
      await logger.waitForLine("Connected to MQTT broker");
      startMs = performance.now() - beginMs;
      await delay(random() * 300);
      if (moment === "writing") await waitForTransaction(scene);
    }
    const isOpening = hasSpoolOpen(logger, scene);
    await logger.kill();
    assert.equal((await logger.exited).signal, "SIGKILL");
    expectNothingBroken(logger);
    const says = (text: string): boolean => logger.lines.some((line) => line.includes(text));
    const isEarly = !says("Connected to MQTT broker");
    runs.push({
      kills: 1,
      early: Number(isEarly),
      opening: Number(isEarly && isOpening),
      recovering: Number(isEarly && isOpening && isLeft),
      found: Number(says("of an earlier run in the spool")),
      // A run that was killed early may have left the messages that it found.
      interrupted: Number(isTransactionOpen(scene.directory) && !(isEarly && isLeft)),
    });
  }
  return sumRuns(runs);
}

/** Waits for a short time until the spool is being written to. */
async function waitForTransaction({ directory }: Scene): Promise<void> {
  const latestMs = performance.now() + 100;
  while (!isTransactionOpen(directory) && performance.now() < latestMs) await delay(0);
}

function hasSpoolOpen({ pid }: LoggerProcess, { directory }: Scene): boolean {
  const path = `${Deno.realPathSync(directory)}/${SPOOL_FILE}`;
  const descriptors = `/proc/${pid}/fd`;
  try {
    return Deno.readDirSync(descriptors).some(({ name }) =>
      Deno.readLinkSync(`${descriptors}/${name}`) === path
    );
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false; // One was closed, or all have been.
    throw error;
  }
}
