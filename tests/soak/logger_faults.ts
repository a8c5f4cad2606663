/** Faults of the logger itself. */
import { type FakeClock, hasFakeClock } from "../support/fake_clock.ts";
import { type Fault, waitFor } from "./fault.ts";
import type { LoggerKeeper } from "./logger_keeper.ts";

/** Minimum and maximum change of the clock in days; older rejected messages would be deleted. */
const MIN_DAYS = 3;
const MAX_DAYS = 20;

const DAY_S = 24 * 3600;

export const LOGGER_FAULTS: readonly Fault[] = [
  {
    kind: "logger killed",
    isLogger: true,
    begin: async ({ logger }) => {
      await logger.kill();
      return () => logger.start();
    },
  },
  {
    kind: "logger stopped",
    isLogger: true,
    begin: async ({ logger }) => {
      await stop(logger);
      return () => logger.start();
    },
  },
  {
    kind: "clock set forward or back, and right again",
    lacks: hasFakeClock() ? undefined : "libfaketime",
    begin: async (stage, random) => {
      const { logger, databaseLink } = stage;
      const clock = stage.clock as FakeClock;
      await stop(logger);
      logger.start(clock.env);
      await logger.waitForLine("Connected to database");
      const days = MIN_DAYS + Math.floor(random() * (MAX_DAYS - MIN_DAYS + 1));
      const offsetDays = random() < 0.5 ? days : -days;
      clock.set(offsetDays * DAY_S);
      // Causes a log line, which has the time.
      const from = logger.lineCount;
      await waitFor(stage, () => databaseLink.reset() > 0, "a connection");
      await logger.waitForLine(linePattern(offsetDays), { from });
      return () => clock.set(0);
    },
  },
];

async function stop(logger: LoggerKeeper): Promise<void> {
  // Before that, it may not have installed its signal handlers.
  await logger.waitForLine(/Connected to|is not available/);
  await logger.stop();
}

/** Matches lines of that time; it may differ by a day because of time zones. */
function linePattern(offsetDays: number): RegExp {
  const dates = [-1, 0, 1].map((days) =>
    new Date(Date.now() + (offsetDays + days) * DAY_S * 1000).toISOString().slice(0, 10)
  );
  return new RegExp(`^(${dates.join("|")}) .*Database .* is not available`);
}
