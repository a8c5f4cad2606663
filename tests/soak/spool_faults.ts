/**
 * Faults of the disk with the spool. They have an effect only while the database does not accept
 * messages, so the database is made unavailable, too.
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

/** Rejected messages that must be recorded before the disk refuses writes. */
const LAST_REJECTED = 1000;

function spoolFault(kind: string, harm: (disk: SpoolDisk) => Promise<void> | void): Fault {
  return {
    kind: `${kind}, while the database is unavailable`,
    lacks: canMount() ? undefined : "the permission to mount",
    // Messages that neither accepts stay with the broker; a stopped logger reports that as a
    // failure.
    isAlone: true,
    begin: async (stage) => {
      const disk = stage.spoolDisk as SpoolDisk;
      // A logger that is still starting could not, or would not notice the fault.
      await stage.logger.waitForLine(/Connected to|is not available/);
      // Messages rejected meanwhile would only be logged.
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

/** Whether the spool is empty and all rejected messages are recorded. */
function isSettled({ load }: Stage, { path }: SpoolDisk): boolean {
  if (countSpooled(path) > 0) return false;
  // Some may be recorded twice.
  const recorded = readRejected(path, { last: 2 * LAST_REJECTED });
  return load.rejected.slice(-LAST_REJECTED).every((payload) => recorded.has(payload));
}

/** Whether the logger reports the refusal, and spools nothing for longer than its delay. */
async function isRefusing(stage: Stage, { path }: SpoolDisk): Promise<boolean> {
  const before = countSpooled(path);
  await waitForDue(stage, 2 * stage.load.rate);
  return countSpooled(path) === before &&
    stage.logger.lastSays(/is not accepting/, /The spool is (?:not )?accepting/);
}
