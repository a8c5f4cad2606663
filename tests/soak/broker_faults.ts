/**
 * Faults of the broker. What it has acknowledged and not handed over is its own to lose: where it
 * would, the load pauses before until there is nothing of that kind.
 */
import { CLIENT_ID } from "../support/harness.ts";
import type { MosquittoBroker } from "../support/mosquitto.ts";
import { expectSilence, type Fault, waitFor } from "./fault.ts";
import { takeDown } from "./link_faults.ts";
import { hadSession, SessionThief } from "./silent_client.ts";
import { BROKER_USER, BROKER_USERS, type Stage } from "./stage.ts";

const IDENTITY = { clientId: CLIENT_ID, ...BROKER_USER };

export const BROKER_FAULTS: readonly Fault[] = [
  {
    kind: "broker stopped",
    begin: async (stage) => {
      await stage.broker.stop();
      await waitForNoConnection(stage);
      return async () => await stage.broker.start();
    },
  },
  {
    kind: "broker killed",
    begin: async (stage) => {
      const { broker, load } = stage;
      // With the session. What waits in it now, it will hand over a second time.
      await broker.save();
      await untilHandedOver(stage);
      // What is published from now on finds a broker that acknowledges nothing any more.
      broker.signal("SIGSTOP");
      load.resume();
      await expectSilence(stage, () => stage.brokerLink.bytesToClient);
      await broker.kill();
      if (broker.isRunning) throw new Error("Mosquitto has survived a SIGKILL");
      await waitForNoConnection(stage);
      return async () => await broker.start();
    },
  },
  {
    kind: "broker restarted without its store",
    begin: async (stage) => {
      const { broker, brokerLink } = stage;
      await untilHandedOver(stage);
      await takeDown(stage, brokerLink);
      await broker.restart({ keepStore: false });
      if (await hadSession(broker, IDENTITY)) throw new Error("Mosquitto remembers the session");
      return async () => await brokerLink.allow();
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
  {
    kind: "broker refusing the logger",
    begin: async (stage) => {
      // The daemons come without a password.
      const { broker, brokerLink } = stage;
      // Or Mosquitto 2.0.11, when it reads the passwords again, ends it once more, and crashes later.
      await waitFor(stage, () => isConnected(broker), "the logger to be connected");
      const from = broker.logLines.length;
      const says = (pattern: RegExp): boolean =>
        broker.logLines.slice(from).some((line) => pattern.test(line));
      await broker.setUsers({ [BROKER_USER.username]: "another" });
      await waitFor(stage, () => says(/^Reloading config/), "the broker to know the password");
      brokerLink.reset();
      await waitFor(stage, () => says(/not authorized/), "the broker to refuse the logger");
      return async () => await broker.setUsers(BROKER_USERS);
    },
  },
  {
    kind: "session taken over by another client",
    begin: async (stage) => {
      const { broker, brokerLink } = stage;
      await waitFor(stage, () => brokerLink.openConnections > 0, "a connection");
      const from = broker.logLines.length;
      const isTaken = (): boolean =>
        broker.logLines.slice(from).some((line) => line.includes("already connected, closing old"));
      const thief = new SessionThief(broker, IDENTITY);
      try {
        const what = "the session to be taken over";
        await waitFor(stage, () => isTaken() && thief.hasSession, what);
      } catch (error) {
        await thief[Symbol.asyncDispose]();
        throw error;
      }
      return async () => await thief[Symbol.asyncDispose]();
    },
  },
];

/** Whether the logger is connected to the broker, according to the broker. */
function isConnected({ logLines }: MosquittoBroker): boolean {
  const begun = logLines.findLastIndex((line) =>
    line.startsWith("New client connected") && line.includes(` as ${CLIENT_ID} (`)
  );
  return begun > logLines.findLastIndex((line) => line.startsWith(`Client ${CLIENT_ID} `));
}

async function waitForNoConnection(stage: Stage): Promise<void> {
  const { brokerLink } = stage;
  await waitFor(stage, () => brokerLink.openConnections === 0, "the end of connections");
}

/**
 * Lets the load pause, until `heal` or the fault lets it go on, and waits until the broker has
 * handed over everything: the rows are there, and the other messages came before the last ones.
 */
async function untilHandedOver(stage: Stage): Promise<void> {
  const { load, database } = stage;
  await load.pause((condition, what) => waitFor(stage, condition, what));
  await waitFor(
    stage,
    async () => await database.countReadings() === load.readings,
    "all readings to be stored",
  );
}
