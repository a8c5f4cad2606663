/** The commands that the documents print for a real installation, run as they are printed. */
import assert from "node:assert/strict";
import { RUN_FLAGS } from "../../deploy/run_flags.ts";
import { readCodeBlocks, readDocument, readSection, ROOT } from "../support/documents.ts";
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

/** Writes a program into a directory of the search path. */
function writeProgram(path: string, script: string): void {
  Deno.writeTextFileSync(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

/** The blocks of a document that use an installation, and start nothing that does not end. */
function readUses(path: string): string[] {
  return readCodeBlocks(readDocument(path), "sh").filter((block) =>
    !/kraken-logger run/.test(block)
  );
}

/**
 * Installs the logger by the commands of a document, and stores readings with it; then runs the
 * commands of the pages that presuppose an installation.
 */
async function install(
  text: string,
  { prints = [], uses = [] }: {
    readonly prints?: readonly string[];
    readonly uses?: readonly string[];
  } = {},
): Promise<void> {
  using directory = withTemporaryDirectory();
  const { path } = directory;
  await using postgres = await startPostgres();
  await using broker = await startTellingMosquitto();
  const owner = postgres.superuser("sensors");
  // The ports are those of the test, and `sudo -u postgres` runs psql as the superuser.
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
  const runScript = async (script: string): Promise<string> =>
    await runSuccessfully("/bin/sh", {
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
  const blocks = readCodeBlocks(text, "sh").filter((block) => !block.includes("npx "));
  const last = blocks.pop() ?? "";
  assert.ok(last.endsWith("./kraken-logger check\n./kraken-logger run\n"), last);
  const script = [...blocks, last.replace("./kraken-logger run\n", "")].join("")
    .replace("OWNERS_PASSWORD", `'${owner.password}'`);
  const printed = await runScript(script);
  for (const line of ["CREATE ROLE", "CREATE DATABASE", "INSERT 0 1", ...prints]) {
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
  // Each of them may be used beside a logger that runs.
  for (const block of uses) assert.doesNotMatch(await runScript(block), /PROBLEM/, block);
  await stopCleanly(logger);
}

Deno.test(
  "the README's commands make an installation that stores readings",
  { ignore: lacks("mosquitto", "psql") },
  async () => {
    await install(readSection("README.md", "Install"));
  },
);

Deno.test("the commands of docs/install.md make an installation, and those of other pages use it", {
  ignore: lacks("mosquitto", "psql"),
}, async () => {
  const uses = ["docs/commands.md", "docs/spool.md"].flatMap(readUses);
  assert.ok(uses.length >= 5);
  await install(readDocument("docs/install.md"), { prints: ["CREATE TABLE", "GRANT"], uses });
});
