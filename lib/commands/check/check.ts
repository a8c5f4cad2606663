/**
 * `kraken-logger check`: examines what the logger depends on, and says what to do about it.
 *
 * It changes nothing: it stores no row, uses a client id of its own, so that a logger that runs is
 * not pushed aside, and joins no shared group, whose messages it would take away.
 */

import { checkBroker } from "./broker.ts";
import { checkDatabase } from "./database.ts";
import type { Report } from "./findings.ts";
import { checkSpool } from "./spool.ts";
import type { Config } from "../../config/config.ts";

/**
 * Runs all examinations and prints a line for each finding. Returns whether none is a problem.
 * A configuration that cannot be parsed has been refused before.
 */
export async function check(config: Config, print: (text: string) => void): Promise<boolean> {
  let problems = 0;
  const report: Report = ({ level, text }) => {
    if (level === "problem") problems++;
    print(`${(level === "problem" ? "PROBLEM" : level).padEnd(8)} ${text}\n`);
  };
  report({ level: "ok", text: "Configuration: complete and well-formed." });
  for (const text of config.warnings) report({ level: "note", text: `Configuration: ${text}` });
  checkSpool(config.spool, report);
  const columns = await checkDatabase(config.database, report);
  for (const endpoint of config.mqtt.endpoints) {
    await checkBroker(config.mqtt, { endpoint, columns, report });
  }
  print(
    problems === 0
      ? "No problem found.\n"
      : `${problems} ${problems === 1 ? "problem" : "problems"} found.\n`,
  );
  return problems === 0;
}
