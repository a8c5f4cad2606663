/**
 * The end of the soak: waits until all readings are stored, and compares the table with the
 * published readings in parts, so that any number of readings fits into memory.
 */
import { runLogger } from "../support/logger_process.ts";
import { delay } from "../support/poll.ts";
import { compareStored } from "../support/readings.ts";
import type { Stage } from "./stage.ts";

/** The result of the comparison. */
export interface Outcome {
  readonly rows: number;
  readonly lost: number;
  readonly storedTwice: number;
  /** Rows with another value, or that were not published. */
  readonly wrong: number;
  /** Messages that should have been recorded as rejected, and were not. */
  readonly notRecorded: number;
  /** The first of these differences, and other problems. */
  readonly problems: readonly string[];
}

/** Without a new row for this time, no further rows are expected. */
const STALL_MS = 60_000;

/** Time for the daemons to publish their backlog. */
const PUBLISH_TIMEOUT_MS = 600_000;

/** The record keeps only this many rejected messages; earlier ones are not checked. */
const MAX_RECORDED = 50_000;

/** Maximum number of reported differences. */
const MAX_SHOWN = 10;

/** Ends the load, waits for the last row, ends the logger and compares. No fault may be active. */
export async function drainAndCompare(stage: Stage): Promise<Outcome> {
  const { load, logger } = stage;
  await load.finish({ timeoutMs: PUBLISH_TIMEOUT_MS });
  await waitForRows(stage, load.readings);
  const problems: string[] = [];
  // The keeper records a failure of that.
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

/** Waits until the table has this number of rows, or stops growing. */
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
