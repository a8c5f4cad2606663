/** What `check` examines about the spool. */

import { existsSync, lstatSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { Report } from "./findings.ts";
import type { SpoolConfig } from "../../config/config.ts";
import { systemReason } from "../../config/environment.ts";
import { SpoolDatabase } from "../../spool/file.ts";
import { Spool } from "../../spool/spool.ts";

/** Reports whether messages can be kept on disk, and what is there. A logger may be using it. */
export function checkSpool(config: SpoolConfig | undefined, report: Report): void {
  if (config === undefined) {
    report({
      level: "note",
      text: "Spool: SPOOL_DIRECTORY is not set. While the database is away, messages are left " +
        "with the broker, whose queue is limited (Mosquitto: max_queued_messages, 1000 by default).",
    });
    return;
  }
  const { directory, maxBytes } = config;
  const subject = `Spool in '${directory}'`;
  const limit = `${(maxBytes / 2 ** 20).toFixed(0)} MiB at most`;
  try {
    probeWriting(directory);
    report({
      level: "ok",
      text: `${subject}: can be written, ${limit}, ${describeContent(config)}.`,
    });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      reportMissing(directory, report);
    } else {
      report({ level: "problem", text: `${subject}: ${systemReason(error)}.` });
    }
  }
}

/** `run` makes the directory, with those above it that are missing too. */
function reportMissing(directory: string, report: Report): void {
  const subject = `Spool in '${directory}'`;
  let parent = resolve(directory);
  // A link that leads nowhere is in the way too, and only `lstat` sees it.
  while (lstatSync(parent, { throwIfNoEntry: false }) === undefined) parent = dirname(parent);
  try {
    probeWriting(parent);
    report({ level: "note", text: `${subject}: is not there yet, 'run' creates it.` });
  } catch (error) {
    report({
      level: "problem",
      text: `${subject}: is not there, and 'run' cannot create it in '${parent}' ` +
        `(${systemReason(error)}). Create it for the user that runs the logger, or mend ` +
        "SPOOL_DIRECTORY.",
    });
  }
}

/** Makes an empty file and takes it away again: root may write everywhere but where it cannot. */
function probeWriting(directory: string): void {
  Deno.removeSync(Deno.makeTempFileSync({ dir: directory, prefix: ".check-" }));
}

function describeContent(config: SpoolConfig): string {
  if (!existsSync(SpoolDatabase.path(config))) return "empty";
  using database = SpoolDatabase.attach(config);
  return `${new Spool(database).count} messages wait in it`;
}
