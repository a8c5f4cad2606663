/**
 * The faults of the soak. Each shows that it has fired before it is held for a while.
 */
import { waitForBlockedInsert } from "../program/harness.ts";
import { waitUntil } from "../services/poll.ts";
import type { ProxyDirection, TcpProxy } from "../services/proxy.ts";
import type { Stage } from "./stage.ts";

/** Ends a fault. */
export type EndFault = () => Promise<void> | void;

/** A kind of fault. */
export interface Fault {
  /** As the summary has it. */
  readonly kind: string;
  /** Whether it is one of the logger itself, which may come on top of another one. */
  readonly isLogger?: boolean;
  /**
   * Begins it, and resolves when it has shown.
   *
   * @throws {Error} when it does not.
   */
  readonly begin: (stage: Stage, random: () => number) => Promise<EndFault>;
}

const DIRECTIONS: readonly ProxyDirection[] = ["toServer", "toClient", "both"];

export const FAULTS: readonly Fault[] = [
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
      // Before that it may not have come to listen to signals.
      await logger.waitForLine(/Connected to|is not available/);
      await logger.stop();
      return () => logger.start();
    },
  },
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
    kind: "database read-only",
    begin: async (stage) => {
      const { postgres, database } = stage;
      const alter = `ALTER DATABASE "${database.name}"`;
      const from = postgres.logLines.length;
      await database.query(`${alter} SET default_transaction_read_only = on`);
      await terminateLogger(stage);
      await waitUntil(
        () =>
          postgres.logLines.slice(from).some((line) =>
            /cannot execute \w+ in a read-only transaction/.test(line)
          ),
        { timeoutMs: 60_000, what: "an insert to be refused" },
      );
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
  {
    kind: "broker stopped",
    begin: async ({ broker, brokerLink }) => {
      await broker.stop();
      await waitUntil(() => brokerLink.openConnections === 0, { what: "the end of connections" });
      return async () => await broker.start();
    },
  },
  {
    kind: "broker frozen",
    begin: async (stage) => {
      stage.broker.signal("SIGSTOP");
      await expectSilence(stage, () => stage.brokerLink.bytesToClient);
      return () => stage.broker.signal("SIGCONT");
    },
  },
  ...linkFaults("broker", (stage) => stage.brokerLink),
  ...linkFaults("database", (stage) => stage.databaseLink),
];

/** The faults of the network between the logger and a service. */
function linkFaults(name: string, linkOf: (stage: Stage) => TcpProxy): Fault[] {
  return [
    {
      kind: `link to the ${name} reset`,
      begin: async (stage) => {
        const link = linkOf(stage);
        await waitUntil(() => link.reset() || null, { timeoutMs: 60_000, what: "a connection" });
        return () => {};
      },
    },
    {
      kind: `link to the ${name} down`,
      begin: async (stage) => {
        const link = linkOf(stage);
        await link.refuse();
        link.reset();
        await waitUntil(() => link.openConnections === 0, { what: "the end of connections" });
        return async () => await link.allow();
      },
    },
    {
      kind: `link to the ${name} stalled`,
      begin: async (stage, random) => {
        const link = linkOf(stage);
        const direction = DIRECTIONS[Math.floor(random() * DIRECTIONS.length)] ?? "both";
        link.pause(direction);
        if (direction !== "toClient") await expectSilence(stage, () => link.bytesToServer);
        if (direction !== "toServer") await expectSilence(stage, () => link.bytesToClient);
        return () => link.resume();
      },
    },
  ];
}

async function terminateLogger({ database }: Stage): Promise<void> {
  await waitUntil(async () => await database.terminateLogger() || null, {
    timeoutMs: 60_000,
    what: "a connection of the logger",
  });
}

/** Asserts that nothing passes while readings fall due, which each cause packets in health. */
async function expectSilence({ load }: Stage, bytes: () => number): Promise<void> {
  const waitForDue = async (count: number): Promise<void> => {
    const target = load.due + count;
    await waitUntil(() => load.due >= target, { timeoutMs: 60_000, what: `${count} readings` });
  };
  // What was on its way is let pass.
  await waitForDue(20);
  const before = bytes();
  await waitForDue(50);
  const passed = bytes() - before;
  if (passed !== 0) throw new Error(`${passed} bytes have passed, where none should`);
}
