/**
 * Faults of the disk that the spool is on. They show only while the database does not take what
 * comes, so that this is taken away, too.
 */
import { canMount } from "../faults/small_disk.ts";
import { countSpooled } from "../faults/spool_file.ts";
import { type Fault, waitFor, waitForDue } from "./fault.ts";
import { takeDown } from "./link_faults.ts";
import { readRejected, type SpoolDisk } from "./spool_disk.ts";
import type { Stage } from "./stage.ts";

export const SPOOL_FAULTS: readonly Fault[] = [
  spoolFault("spool's disk full", (disk) => disk.fill()),
  spoolFault("spool directory read-only", (disk) => disk.makeReadOnly()),
];

/** Rejected messages that must be recorded before the record cannot be written any more. */
const LAST_REJECTED = 1000;

function spoolFault(kind: string, harm: (disk: SpoolDisk) => Promise<void> | void): Fault {
  return {
    kind: `${kind}, while the database is away`,
    lacks: canMount() ? undefined : "the right to mount",
    // What neither takes stays with the broker: a logger that is stopped reports that as a failure.
    isAlone: true,
    begin: async (stage) => {
      const disk = stage.spoolDisk as SpoolDisk;
      // One that is still starting could not, or would find nothing to complain of.
      await stage.logger.waitForLine(/Connected to|is not available/);
      // What is rejected meanwhile would be in the log only.
      await stage.load.pauseNoise((condition, what) => waitFor(stage, condition, what));
      await waitFor(stage, () => isSettled(stage, disk), "the spool to be empty");
      await harm(disk);
      await takeDown(stage, stage.databaseLink);
      await waitFor(stage, () => isRefusing(stage, disk), "the spool to refuse");
      return async () => {
        await disk.heal();
        await stage.databaseLink.allow();
      };
    },
  };
}

/** Whether nothing is in the spool, and everything that was rejected is on record. */
function isSettled({ load }: Stage, { path }: SpoolDisk): boolean {
  if (countSpooled(path) > 0) return false;
  // Some may be there twice.
  const recorded = readRejected(path, { last: 2 * LAST_REJECTED });
  return load.rejected.slice(-LAST_REJECTED).every((payload) => recorded.has(payload));
}

/** Whether the logger says so, and nothing is spooled in more time than it waits before it does. */
async function isRefusing(stage: Stage, { path }: SpoolDisk): Promise<boolean> {
  const before = countSpooled(path);
  await waitForDue(stage, 2 * stage.load.rate);
  return countSpooled(path) === before && stage.logger.lastSays(/no more/, /The spool takes/);
}
