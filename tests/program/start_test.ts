/** The commands that the README prints for a real installation, run as they are printed. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { RUN_FLAGS } from "../../deploy/run_flags.ts";
import { type LoggerEnv, startLogger } from "../support/logger_process.ts";
import { startPostgres } from "../support/postgres.ts";
import { TestDatabase } from "../support/postgres_database.ts";
import { runSuccessfully } from "../support/process.ts";
import { lacks } from "../support/programs.ts";
import { publishReadings } from "../support/publisher.ts";
import { expectStored, makeReadings } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  startTellingMosquitto,
  stopCleanly,
  waitForRows,
  waitForSubscription,
} from "../support/harness.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
const README = Deno.readTextFileSync(`${ROOT}/README.md`);

/** The commands of a section, in their order, one text for each block. */
function readBlocks(section: string): string[] {
  const start = README.indexOf(`\n## ${section}\n`);
  const text = README.slice(start, README.indexOf("\n## ", start + 1));
  return [...text.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block = ""]) => block);
}

/** Writes a program into a directory of the search path. */
function writeProgram(path: string, script: string): void {
  Deno.writeTextFileSync(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

Deno.test("the commands under 'Start' make an installation that stores readings", {
  ignore: lacks("mosquitto", "psql"),
}, async () => {
  using directory = withTemporaryDirectory();
  const { path } = directory;
  await using postgres = await startPostgres();
  await using broker = await startTellingMosquitto();
  const owner = postgres.superuser("sensors");
  // The ports are those of the test. Who may become `postgres` is that user for psql.
  const ports: LoggerEnv = {
    DATABASE_PORT: String(owner.port),
    MQTT_PORT: String(broker.port),
  };
  const bin = `${path}/bin`;
  Deno.mkdirSync(bin);
  writeProgram(`${bin}/sudo`, '[ "$1 $2" = "-u postgres" ] && shift 2 && exec "$@"');
  const binary = Deno.env.get("KRAKEN_LOGGER_BINARY");
  const run = ["run", "--quiet", "--no-prompt", `--config=${ROOT}/deno.json`, ...RUN_FLAGS];
  const program = binary
    ? [Deno.realPathSync(binary)]
    : [Deno.execPath(), ...run, `${ROOT}/main.ts`];
  writeProgram(`${path}/kraken-logger`, `exec ${program.join(" ")} "$@"`);
  const blocks = readBlocks("Start").filter((block) => !block.includes("npx "));
  const last = blocks.pop() ?? "";
  assert.ok(last.endsWith("./kraken-logger check\n./kraken-logger run\n"), last);
  const script = [...blocks, last.replace("./kraken-logger run\n", "")].join("")
    .replace("OWNERS_PASSWORD", `'${owner.password}'`);
  const printed = await runSuccessfully("/bin/sh", {
    args: ["-euc", script],
    cwd: path,
    env: {
      ...ports,
      PATH: `${bin}:${Deno.env.get("PATH")}`,
      PGHOST: owner.host,
      PGPORT: String(owner.port),
      PGUSER: owner.user,
      PGPASSWORD: owner.password,
    },
  });
  for (const line of ["CREATE ROLE", "CREATE DATABASE", "CREATE TABLE", "GRANT", "INSERT 0 1"]) {
    assert.ok(printed.includes(line), printed);
  }
  assert.doesNotMatch(printed, /PROBLEM/);
  await using logger = startLogger(ports, { args: ["run"], cwd: path });
  await logger.waitForLine("Connected to database");
  await waitForSubscription(broker, { clientId: "kraken-logger" });
  const uuid = /VALUES \('([0-9a-f-]{36})', 0, 'Oven'\)/.exec(script)?.[1] ?? assert.fail(script);
  const readings = makeReadings({ count: 20, sensors: [{ uuid }] });
  await publishReadings(broker, readings);
  const database = new TestDatabase(owner);
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  assert.deepEqual(await database.query("SELECT label, enabled FROM sensors"), [
    { label: "Oven", enabled: true },
  ]);
  await stopCleanly(logger);
});
