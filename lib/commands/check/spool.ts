/** The part of `check` about the spool. */

import { existsSync, lstatSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { ReportFinding } from "./findings.ts";
import type { SpoolConfig } from "../../config/config.ts";
import { systemReason } from "../../config/environment.ts";
import { SpoolFile } from "../../spool/file.ts";
import { Spool } from "../../spool/spool.ts";

/** Reports whether the spool can be used, and what it holds. A running logger may be using it. */
export function checkSpool(config: SpoolConfig | undefined, report: ReportFinding): void {
  if (config === undefined) {
    report({
      level: "note",
      text: "Spool: none, because SPOOL_DIRECTORY is not set. While the database is unavailable, " +
        "messages stay with the broker, whose queue is limited (Mosquitto: max_queued_messages, " +
        "1000 by default).",
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
      text: `${subject}: writable, ${limit}, ${describeContent(config)}.`,
    });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      reportMissing(directory, report);
    } else {
      const text =
        `${subject}: cannot be used (${systemReason(error)}). Correct SPOOL_DIRECTORY, or ` +
        "the permissions of the directory.";
      report({ level: "problem", text });
    }
  }
}

/** `run` creates the directory and its missing parents, so only the nearest existing one decides. */
function reportMissing(directory: string, report: ReportFinding): void {
  const subject = `Spool in '${directory}'`;
  let parent = resolve(directory);
  // A dangling symbolic link is an obstacle as well; only `lstat` sees it.
  while (lstatSync(parent, { throwIfNoEntry: false }) === undefined) parent = dirname(parent);
  try {
    probeWriting(parent);
    report({ level: "note", text: `${subject}: does not exist yet; 'run' creates it.` });
  } catch (error) {
    report({
      level: "problem",
      text: `${subject}: does not exist, and 'run' cannot create it in '${parent}' ` +
        `(${systemReason(error)}). Create it for the user that runs the logger, or correct ` +
        "SPOOL_DIRECTORY.",
    });
  }
}

/**
 * Creates an empty file and removes it. Checking the mode bits is not enough: they do not apply to
 * root, and say nothing about a read-only file system.
 */
function probeWriting(directory: string): void {
  Deno.removeSync(Deno.makeTempFileSync({ dir: directory, prefix: ".check-" }));
}

function describeContent(config: SpoolConfig): string {
  if (!existsSync(SpoolFile.path(config))) return "empty";
  using spoolFile = SpoolFile.attach(config);
  const { count } = new Spool(spoolFile);
  return `${count} ${count === 1 ? "message" : "messages"} waiting`;
}
