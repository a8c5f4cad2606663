/** Faults of the network between the logger and a service, injected by a proxy. */
import type { ProxyDirection, TcpProxy } from "../support/proxy.ts";
import { expectSilence, type Fault, waitFor } from "./fault.ts";
import type { Stage } from "./stage.ts";

const DIRECTIONS: readonly ProxyDirection[] = ["toServer", "toClient", "both"];

/** A connection is cut after at most this many bytes of readings, some dozen readings, … */
const MAX_BYTES_OF_READINGS = 5_000;

/** … or after this many bytes in return: acknowledgements, answers to inserts. */
const MAX_BYTES_OF_ANSWERS = 300;

/** The direction of readings: from the broker to the logger, and from there to the database. */
type ReadingDirection = Exclude<ProxyDirection, "both">;

export const LINK_FAULTS: readonly Fault[] = [
  ...linkFaults("broker", { linkOf: (stage) => stage.brokerLink, readings: "toClient" }),
  ...linkFaults("database", { linkOf: (stage) => stage.databaseLink, readings: "toServer" }),
];

interface LinkOptions {
  readonly linkOf: (stage: Stage) => TcpProxy;
  readonly readings: ReadingDirection;
}

function linkFaults(name: string, { linkOf, readings }: LinkOptions): Fault[] {
  return [
    {
      kind: `link to the ${name} reset`,
      begin: async (stage) => {
        const link = linkOf(stage);
        await waitFor(stage, () => link.reset() > 0, "a connection");
        return () => {};
      },
    },
    {
      kind: `link to the ${name} cut after a random number of bytes`,
      begin: async (stage, random) => {
        const link = linkOf(stage);
        const direction = random() < 0.5 ? "toServer" : "toClient";
        const most = direction === readings ? MAX_BYTES_OF_READINGS : MAX_BYTES_OF_ANSWERS;
        let isCut = false;
        link.cutAfter(Math.floor(random() * most), direction).then(() => isCut = true);
        await waitFor(stage, () => isCut, "the cut");
        return () => {};
      },
    },
    {
      kind: `link to the ${name} down`,
      begin: async (stage) => {
        const link = linkOf(stage);
        await takeDown(stage, link);
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

/** Ends all connections and refuses new ones, until `allow`. */
export async function takeDown(stage: Stage, link: TcpProxy): Promise<void> {
  await link.refuse();
  link.reset();
  await waitFor(stage, () => link.openConnections === 0, "the end of connections");
}
