/**
 * Kills the logger a hundred times at random moments while the database comes and goes. In the
 * counter-tests, a logger that acknowledges too early loses readings in the same scene.
 *
 * `KRAKEN_TEST_SEED` repeats the moments of an earlier run.
 */
import assert from "node:assert/strict";
import { printSeed, readSeed } from "../support/readings.ts";
import {
  ACKNOWLEDGED_BEFORE_COMMIT,
  ACKNOWLEDGED_BEFORE_DISK,
  breakSources,
  lacksSources,
} from "../support/broken_sources.ts";
import { usePostgres } from "../support/harness.ts";
import { killUnderLoad, sumRuns } from "./killing.ts";
import { lacks } from "../support/programs.ts";

const SEED = readSeed();
const KILLS = 100;

const postgres = usePostgres();

Deno.test(
  `run keeps every reading when it is killed ${KILLS} times while the database comes and goes`,
  {
    ignore: lacks("mosquitto"),
  },
  async (t) => {
    printSeed(t, SEED);
    // Two scenes in parallel, each with its own services, because they mostly wait.
    const all = await Promise.all(
      [0, 10].map((part) => killUnderLoad(postgres, { kills: KILLS / 2, seed: SEED + part })),
    );
    const { kills, early, opening, recovering, found, interrupted } = sumRuns(all);
    // deno-lint-ignore no-console
    console.log(
      `${kills} kills: ${early} before connecting to the broker, ${opening} of these with the spool ` +
        `open, ${recovering} after an unfinished transaction; ${found} had found messages in the ` +
        `spool, ${interrupted} were writing to it`,
    );
    assert.equal(kills, KILLS);
    assert.ok(opening > 0, "no kill came while the spool was being opened");
    assert.ok(recovering > 0, "no kill came while an unfinished transaction was found");
    assert.ok(found >= kills / 5, "too few runs found messages in the spool");
    assert.ok(interrupted > 0, "no kill came while the spool was written to");
  },
);

for (
  const { weather, breakage, breakages } of [{
    weather: "is unavailable",
    breakage: "an acknowledgement before the messages are on disk",
    breakages: ACKNOWLEDGED_BEFORE_DISK,
  }, {
    weather: "stalls",
    breakage: "an acknowledgement before the commit",
    breakages: ACKNOWLEDGED_BEFORE_COMMIT,
  }] as const
) {
  const kills = 10;
  const name = `keeps every reading when it is killed ${kills} times while the database ${weather}`;

  Deno.test(`run ${name}`, { ignore: lacks("mosquitto") }, async (t) => {
    printSeed(t, SEED);
    const runs = await killUnderLoad(postgres, { kills, seed: SEED, weather });
    assert.equal(runs.kills, kills);
  });

  Deno.test(`${breakage} is noticed: run no longer ${name}`, {
    ignore: lacks("mosquitto") || lacksSources(),
  }, async (t) => {
    printSeed(t, SEED);
    using sources = breakSources(breakages);
    await assert.rejects(
      killUnderLoad(postgres, { kills, seed: SEED, weather, sources: sources.path }),
      /^Error: Comparing the table with \d+ readings: \d+ rows, [1-9]\d* missing, 0 extra, 0 with/,
    );
  });
}
