/**
 * Faults of the broker. Some of them lose messages that the broker has acknowledged but not
 * delivered, which the logger cannot prevent. Before those, the load pauses until there are none.
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
      // The store includes the session. The messages queued in it now will be delivered a second
      // time.
      await broker.save();
      await untilHandedOver(stage);
      // From now on, the broker acknowledges no further messages.
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
      // The daemons connect without a password.
      const { broker, brokerLink } = stage;
      // Otherwise Mosquitto 2.0.11 ends it again when it rereads the passwords, and crashes later.
      await waitFor(stage, () => isConnected(broker), "the logger to be connected");
      const from = broker.logLines.length;
      const says = (pattern: RegExp): boolean =>
        broker.logLines.slice(from).some((line) => pattern.test(line));
      await broker.setUsers({ [BROKER_USER.username]: "another" });
      await waitFor(stage, () => says(/^Reloading config/), "the broker to know the password");
      brokerLink.reset();
      await waitFor(stage, () => says(/not authori[sz]ed/), "the broker to refuse the logger");
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
 * Pauses the load until `heal` or the fault resumes it, and waits until the broker has delivered
 * all messages: the rows are stored, and the other messages were published before the last
 * readings.
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
