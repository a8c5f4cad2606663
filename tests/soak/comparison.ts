/**
 * The end of the soak: waits until everything has come through, and compares it with what was
 * published, in pieces, so that no number of readings is too large.
 */
import { runLogger } from "../support/logger_process.ts";
import { delay } from "../support/poll.ts";
import { compareStored } from "../support/readings.ts";
import type { Stage } from "./stage.ts";

/** What the comparison found. */
export interface Outcome {
  readonly rows: number;
  readonly lost: number;
  readonly storedTwice: number;
  /** Rows with another value, or that nobody has published. */
  readonly wrong: number;
  /** Messages to be rejected that the record of the rejected ones does not have. */
  readonly notRecorded: number;
  /** The first ones of all these, and what else is not as it should be. */
  readonly problems: readonly string[];
}

/** Time without a new row after which nothing more is expected. */
const STALL_MS = 60_000;

/** Time for the daemons to get rid of what they have kept. */
const PUBLISH_TIMEOUT_MS = 600_000;

/** The record of the rejected messages keeps only so many: those before them are not looked for. */
const MAX_RECORDED = 50_000;

/** Differences that are shown. */
const MAX_SHOWN = 10;

/** Ends the load, waits for the last row, ends the logger and compares. All must be well. */
export async function drainAndCompare(stage: Stage): Promise<Outcome> {
  const { load, logger } = stage;
  await load.finish({ timeoutMs: PUBLISH_TIMEOUT_MS });
  await waitForRows(stage, load.readings);
  const problems: string[] = [];
  // What goes wrong with that, the keeper notes.
  const counts = await logger.stop().catch(() => undefined);
  if (counts !== undefined && counts.spooled + counts.waiting > 0) {
    problems.push(
      `The last logger has left ${counts.spooled} messages in the spool, ${counts.waiting} waiting`,
    );
  }
  const comparison = await compareTable(stage);
  const unrecorded = await findUnrecorded(stage);
  return {
    ...comparison,
    notRecorded: unrecorded.length,
    problems: [
      ...problems,
      ...comparison.problems,
      ...unrecorded.slice(0, MAX_SHOWN).map((payload) => `Not recorded: ${payload}`),
    ],
  };
}

/** Waits until the table has so many rows, or grows no more. */
async function waitForRows({ database }: Stage, count: number): Promise<void> {
  let rows = -1;
  let growthMs = performance.now();
  while (performance.now() - growthMs < STALL_MS) {
    const before = rows;
    rows = await database.countReadings();
    if (rows >= count) return;
    if (rows > before) growthMs = performance.now();
    await delay(200);
  }
}

async function compareTable(
  { database, load }: Stage,
): Promise<Omit<Outcome, "notRecorded">> {
  const problems: string[] = [];
  let [compared, lost, storedTwice, wrong] = [0, 0, 0, 0];
  for (const { readings, where } of load.chunks()) {
    const { rows, missing, extra, changed } = await compareStored(database, readings, { where });
    const twice = extra.filter((text) => text.endsWith("stored twice"));
    compared += rows;
    lost += missing.length;
    storedTwice += twice.length;
    wrong += changed.length + extra.length - twice.length;
    const texts = [...missing.map((text) => `${text}, lost`), ...extra, ...changed];
    problems.push(...texts.slice(0, MAX_SHOWN - problems.length));
  }
  const rows = await database.countReadings();
  wrong += rows - compared;
  return { rows, lost, storedTwice, wrong, problems };
}

/** Messages that were neither stored nor recorded as rejected. */
async function findUnrecorded({ load, logger }: Stage): Promise<string[]> {
  const { code, stdout, stderr } = await runLogger(["rejected", "--json"], logger.env);
  if (code !== 0) throw new Error(`Reading the rejected messages: status ${code}: ${stderr}`);
  const recorded = new Set(
    stdout.split("\n").filter((line) => line !== "")
      .map((line) => (JSON.parse(line) as { payload?: string }).payload),
  );
  return load.rejected.slice(-MAX_RECORDED).filter((payload) => !recorded.has(payload));
}
