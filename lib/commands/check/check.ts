/**
 * `kraken-logger check`: checks everything the logger depends on, and names the remedy of each
 * problem.
 *
 * It changes nothing: it inserts no row, uses a separate client id, so that the broker does not
 * disconnect a running logger, and joins no shared group, whose messages it would take.
 */

import { checkBroker } from "./broker.ts";
import { checkDatabase } from "./database.ts";
import type { ReportFinding } from "./findings.ts";
import { checkSpool } from "./spool.ts";
import type { Config } from "../../config/config.ts";

/**
 * Runs all checks and prints one line for each finding, then the number of problems. Returns whether
 * there are none. The caller has already refused a configuration that cannot be parsed.
 */
export async function check(config: Config, print: (text: string) => void): Promise<boolean> {
  let problems = 0;
  const report: ReportFinding = ({ level, text }) => {
    if (level === "problem") problems++;
    print(`${(level === "problem" ? "PROBLEM" : level).padEnd(8)} ${text}\n`);
  };
  report({ level: "ok", text: "Configuration: complete and valid." });
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
