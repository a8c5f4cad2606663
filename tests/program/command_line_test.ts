/**
 * The command line of the whole program: what each command prints, what it changes in the database,
 * and its exit status.
 */
import assert from "node:assert/strict";
import { type LoggerEnv, runLogger } from "../support/logger_process.ts";
import { LOGGER_PASSWORD, LOGGER_ROLE } from "../support/postgres_database.ts";
import { runSql, type SqlTarget } from "../support/sql.ts";
import { usePostgres } from "../support/harness.ts";

const postgres = usePostgres();
let databases = 0;

/** An empty database and its owner, who may create tables in it. */
async function createEmptyDatabase(): Promise<{ owner: SqlTarget; name: string }> {
  const name = `empty_${++databases}`;
  const { server } = postgres;
  await server.query(`CREATE ROLE owner_${name} LOGIN PASSWORD 'owner'`);
  await server.query(`CREATE DATABASE ${name} OWNER owner_${name}`);
  return { name, owner: { ...server.superuser(name), user: `owner_${name}`, password: "owner" } };
}

function databaseEnv({ host, port, user, password, database }: SqlTarget): LoggerEnv {
  return {
    DATABASE_HOST: `${host}:${port}`,
    DATABASE_USER: user,
    DATABASE_PASSWORD: password,
    DATABASE_NAME: database,
  };
}

/** The privileges of a role on both tables, such as `sensors SELECT`. */
async function rightsOf(role: string, target: SqlTarget): Promise<string[]> {
  const rows = await runSql<{ right: string }>(
    target,
    `SELECT table_name || ' ' || privilege_type AS right
     FROM information_schema.role_table_grants WHERE grantee = $1 ORDER BY 1`,
    { params: [role] },
  );
  return rows.map(({ right }) => right);
}

Deno.test("--help and --version print and succeed without any configuration", async () => {
  for (const args of [["--help"], ["-h"], ["check", "--help"]]) {
    const { code, stdout, stderr } = await runLogger(args);
    assert.deepEqual([code, stderr], [0, ""]);
    assert.match(stdout, /^kraken-logger: [^]*Usage: kraken-logger \[COMMAND\][^]*--grant ROLE/);
  }
  const { code, stdout, stderr } = await runLogger(["--version"]);
  assert.deepEqual([code, stderr], [0, ""]);
  assert.match(stdout, /^kraken-logger \d+\.\d+\.\d+\n$/);
});

Deno.test("unknown commands and options are named on standard error, with exit status 1", async () => {
  const cases: [string[], RegExp][] = [
    [["start"], /^kraken-logger: unknown command 'start'\. See 'kraken-logger --help'\.\n$/],
    [["--verbose"], /^kraken-logger: .*'--verbose'\. See 'kraken-logger --help'\.\n$/],
    [["check", "now"], /^kraken-logger: .*'now'\. See 'kraken-logger --help'\.\n$/],
  ];
  for (const [args, message] of cases) {
    const { code, stdout, stderr } = await runLogger(args);
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(stderr, message);
  }
});

Deno.test("the SQL of schema creates the tables, and can be run again", async () => {
  const { owner } = await createEmptyDatabase();
  const { code, stdout, stderr } = await runLogger(["schema"]);
  assert.deepEqual([code, stderr], [0, ""]);
  await runSql(owner, stdout);
  await runSql(
    owner,
    `INSERT INTO sensors (uuid) VALUES (gen_random_uuid());
     INSERT INTO sensor_data SELECT '2026-01-01', id, 1.5 FROM sensors`,
  );
  await runSql(owner, stdout);
  assert.deepEqual(await runSql(owner, "SELECT value FROM sensor_data"), [{ value: 1.5 }]);
  const repeat = "INSERT INTO sensor_data SELECT '2026-01-01', id, 2 FROM sensors";
  await assert.rejects(runSql(owner, repeat), { code: "23505" });
  const hypertable = await runLogger(["schema", "--timescale"]);
  assert.equal(hypertable.code, 0);
  assert.ok(hypertable.stdout.startsWith(stdout));
  assert.match(hypertable.stdout, /create_hypertable\('sensor_data', 'time'/);
  const granting = await runLogger(["schema", "--grant", 'odd "role"']);
  assert.match(granting.stdout, /^GRANT SELECT ON sensors TO "odd ""role""";$/m);
});

Deno.test("init creates the tables, can be run again, and needs no broker settings", async () => {
  const { owner, name } = await createEmptyDatabase();
  for (let run = 1; run <= 2; run++) {
    const { code, stdout, stderr } = await runLogger(["init"], databaseEnv(owner));
    assert.deepEqual([code, stderr], [0, ""]);
    const where = `database '${name}' at '${owner.host}:${owner.port}'`;
    // What follows depends on whether the server has TimescaleDB.
    const [first, ...others] = stdout.trimEnd().split("\n");
    assert.equal(first, `ok       The tables sensors and sensor_data exist in ${where}.`);
    for (const line of others) assert.match(line, /^(ok|note) +/);
    const insert = "INSERT INTO sensors (uuid) VALUES (gen_random_uuid())";
    await runSql(owner, insert);
  }
  assert.deepEqual(await runSql(owner, "SELECT count(*)::int FROM sensors"), [{ count: 2 }]);
});

Deno.test("init --grant gives a role exactly the privileges that the logger needs", async () => {
  const { owner } = await createEmptyDatabase();
  await postgres.createDatabase(); // Creates the role, which exists once in the server.
  const args = ["init", "--grant", LOGGER_ROLE];
  const { code, stdout } = await runLogger(args, databaseEnv(owner));
  assert.equal(code, 0, stdout);
  assert.deepEqual(await rightsOf(LOGGER_ROLE, owner), [
    "sensor_data INSERT",
    "sensor_data SELECT",
    "sensors SELECT",
  ]);
  await runSql(owner, "INSERT INTO sensors (uuid) VALUES (gen_random_uuid())");
  const logger = { ...owner, user: LOGGER_ROLE, password: LOGGER_PASSWORD };
  await runSql(logger, "INSERT INTO sensor_data SELECT now(), id, 1 FROM sensors");
  const nobody = await runLogger(["init", "--grant", "nobody"], databaseEnv(owner));
  assert.equal(nobody.code, 1);
  assert.match(nobody.stdout, /^PROBLEM {2}.*role "nobody" does not exist.*\n$/);
});

Deno.test("init names the problem of the database, and fails", async () => {
  const database = await postgres.createDatabase({ uniqueKey: false });
  const asLogger = await runLogger(["init"], databaseEnv(database.logger));
  assert.equal(asLogger.code, 1);
  assert.match(
    asLogger.stdout,
    /^PROBLEM {2}Cannot create the tables in database .*permission.*\n$/,
  );
  assert.doesNotMatch(asLogger.stdout, /grant SELECT/, "which is not the missing privilege");
  const superuser = postgres.server.superuser(database.name);
  const withoutKey = await runLogger(["init"], databaseEnv(superuser));
  assert.equal(withoutKey.code, 1);
  assert.match(withoutKey.stdout, /^PROBLEM {2}.*no unique key.*ALTER TABLE sensor_data ADD/m);
  const nowhere = await runLogger(["init"], databaseEnv({ ...superuser, database: "nothing" }));
  assert.equal(nowhere.code, 1);
  assert.match(nowhere.stdout, /^PROBLEM {2}.*"nothing" does not exist/m);
  const unconfigured = await runLogger(["init"]);
  assert.equal(unconfigured.code, 78);
  assert.match(unconfigured.stderr, /^DATABASE_HOST: must be set$/m);
  assert.doesNotMatch(unconfigured.stderr, /MQTT/);
});
