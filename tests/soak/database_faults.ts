/**
 * Faults of the database.
 */
import { waitForBlockedInsert } from "../program/harness.ts";
import { expectSilence, type Fault, waitFor } from "./fault.ts";
import type { Stage } from "./stage.ts";

export const DATABASE_FAULTS: readonly Fault[] = [
  {
    kind: "database stopped",
    begin: async ({ postgres }, random) => {
      await postgres.stop(random() < 0.5 ? "fast" : "immediate");
      return async () => await postgres.start();
    },
  },
  {
    kind: "database killed",
    begin: async ({ postgres }) => {
      await postgres.kill();
      if (postgres.isRunning) throw new Error("PostgreSQL has survived a SIGKILL");
      return async () => await postgres.start();
    },
  },
  {
    kind: "database frozen",
    begin: async (stage) => {
      await stage.postgres.kill("SIGSTOP");
      await expectSilence(stage, () => stage.databaseLink.bytesToClient);
      return async () => await stage.postgres.kill("SIGCONT");
    },
  },
  {
    kind: "database connections terminated",
    begin: async (stage) => {
      await terminateLogger(stage);
      return () => {};
    },
  },
  {
    kind: "database connections all taken by others",
    begin: async (stage) => {
      const from = stage.postgres.logLines.length;
      const others = await stage.database.takeAllConnections();
      try {
        await waitForRefusal(stage, /too many clients|connection slots are reserved/, {
          from,
          // Those of the others themselves.
          count: others.refusals + 1,
        });
      } catch (error) {
        await others[Symbol.asyncDispose]();
        throw error;
      }
      return async () => await others[Symbol.asyncDispose]();
    },
  },
  {
    kind: "database password changed",
    begin: async (stage) => {
      const { database, postgres } = stage;
      const from = postgres.logLines.length;
      await database.setLoggerPassword("another one");
      // None, where it has just lost them for another reason.
      await database.terminateLogger();
      await waitForRefusal(stage, /password authentication failed/, { from });
      return async () => await database.setLoggerPassword();
    },
  },
  {
    kind: "database read-only",
    begin: async (stage) => {
      const { postgres, database } = stage;
      const alter = `ALTER DATABASE "${database.name}"`;
      const from = postgres.logLines.length;
      await database.query(`${alter} SET default_transaction_read_only = on`);
      await terminateLogger(stage);
      await waitForRefusal(stage, /cannot execute \w+ in a read-only transaction/, { from });
      return async () => {
        await postgres.query(`${alter} RESET default_transaction_read_only`);
      };
    },
  },
  {
    kind: "table locked",
    begin: async ({ database }) => {
      const lock = await database.connect();
      try {
        await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
        await waitForBlockedInsert(database);
      } catch (error) {
        await lock[Symbol.asyncDispose]();
        throw error;
      }
      // The end of the connection ends the transaction.
      return async () => await lock[Symbol.asyncDispose]();
    },
  },
];

async function terminateLogger(stage: Stage): Promise<void> {
  const { database } = stage;
  const what = "a connection of the logger";
  await waitFor(stage, async () => await database.terminateLogger() > 0, what);
}

interface RefusalOptions {
  /** Lines in the log of the server that do not count. */
  readonly from: number;
  /** Once by default. */
  readonly count?: number;
}

/** Waits until the server has refused something for such a reason. */
async function waitForRefusal(
  stage: Stage,
  reason: RegExp,
  { from, count = 1 }: RefusalOptions,
): Promise<void> {
  const hasRefused = (): boolean =>
    stage.postgres.logLines.slice(from).filter((line) => reason.test(line)).length >= count;
  await waitFor(stage, hasRefused, "the database to refuse the logger");
}
