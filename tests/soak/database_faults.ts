/**
 * Faults of the database.
 */
import { waitForBlockedInsert } from "../support/harness.ts";
import { expectSilence, type Fault, waitFor } from "./fault.ts";
import type { Stage } from "./stage.ts";

const TOO_MANY = /too many clients|connection slots are reserved/;

/** The state to wait for. */
const REFUSAL = "the database to refuse the logger";

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
      const { database, postgres } = stage;
      const from = postgres.logLines.length;
      const others = database.takeConnections();
      try {
        await waitFor(stage, async () => {
          await others.takeAll();
          // The server also logs the connections of other clients.
          return countRefusals(stage, TOO_MANY, from) > others.refusals;
        }, REFUSAL);
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
      await waitFor(stage, async () => {
        // The logger may have none, after another fault or while it is opening one.
        await database.terminateLogger();
        return countRefusals(stage, /password authentication failed/, from) > 0;
      }, REFUSAL);
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
      const reason = /cannot execute \w+ in a read-only transaction/;
      await waitFor(stage, () => countRefusals(stage, reason, from) > 0, REFUSAL);
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

/** Counts the refusals with this reason in the log of the server, from a line on. */
function countRefusals({ postgres }: Stage, reason: RegExp, from: number): number {
  return postgres.logLines.slice(from).filter((line) => reason.test(line)).length;
}
