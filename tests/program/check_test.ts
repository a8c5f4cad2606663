/**
 * `kraken-logger check`: finds each mistake of an installation and names the remedy, without
 * disturbing a running logger.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { type LoggerEnv, loggerEnv, runLogger, startLogger } from "../support/logger_process.ts";
import { startMosquitto } from "../support/mosquitto.ts";
import { findFreePort, LOOPBACK } from "../support/ports.ts";
import { publishPayloads, publishReadings } from "../support/publisher.ts";
import { expectStored, makeReadings, type Reading } from "../support/readings.ts";
import {
  linesOf,
  onlyLine,
  startTellingMosquitto,
  stopCleanly,
  usePostgres,
  waitForRows,
  waitForSubscription,
} from "../support/harness.ts";
import { startScriptedBroker } from "../fakes/scripted_broker.ts";
import { lacks } from "../support/programs.ts";

// As `check` demands it.
const postgres = usePostgres({ settings: { fsync: "on" } });

interface CheckResult {
  readonly code: number;
  /** The printed lines without the last one, which counts the problems. */
  readonly findings: readonly string[];
  /** The findings that are problems. */
  readonly problems: readonly string[];
  readonly summary: string;
}

async function check(env: LoggerEnv): Promise<CheckResult> {
  const { code, stdout, stderr } = await runLogger(["check"], env);
  assert.equal(stderr, "");
  const lines = stdout.trimEnd().split("\n");
  const findings = lines.slice(0, -1);
  for (const finding of findings) assert.match(finding, /^(ok {7}|note {5}|PROBLEM {2})\S.*[.;)]$/);
  const problems = findings.filter((finding) => finding.startsWith("PROBLEM"));
  return { code, findings, problems, summary: lines.at(-1) ?? "" };
}

/** Asserts that the problems are those that the patterns describe, in their order. */
function assertProblems(result: CheckResult, ...patterns: readonly RegExp[]): void {
  const all = [...result.findings, result.summary].join("\n");
  assert.equal(result.problems.length, patterns.length, all);
  patterns.forEach((pattern, index) => assert.match(result.problems[index] ?? "", pattern));
  assert.equal(result.code, patterns.length === 0 ? 0 : 1);
  const count = patterns.length === 0 ? "No problem" : `${patterns.length} problems?`;
  assert.match(result.summary, new RegExp(`^${count} found\\.$`));
}

/** Runs tasks four at a time: most of their time is waiting. */
async function runAll(tasks: readonly (() => Promise<void>)[]): Promise<void> {
  const left = [...tasks];
  const work = async (): Promise<void> => {
    for (let task; (task = left.shift()) !== undefined;) await task();
  };
  const ends = await Promise.allSettled(Array.from({ length: 4 }, work));
  for (const end of ends) if (end.status === "rejected") throw end.reason;
}

Deno.test("check reports each part of a working installation as ok", async () => {
  await using broker = await startBroker();
  const database = await postgres.createDatabase();
  await database.registerSensors([{ uuid: crypto.randomUUID(), enabled: false }]);
  await publishReadings(broker, makeReadings({ count: 1 }), { retain: true });
  const result = await check(loggerEnv({ database, broker }));
  assertProblems(result);
  const expected = [
    "Configuration: complete and valid.",
    `Database '${database.name}' at '127.0.0.1:${postgres.server.port}': connected, not encrypted.`,
    `Server: PostgreSQL ${postgres.server.version}`,
    "Clock: differs by 0.",
    "Privileges: complete.",
    "Schema: sensor_data.value is double precision, sensors.sensor_sid is integer.",
    "Unique key: on (sensor_id, time).",
    "Sensors: 11 registered, 10 enabled.",
    `Broker '127.0.0.1:${broker.port}': connected with MQTT `,
    "Subscription 'sensors/#': granted with QoS 2.",
    "Messages: 1 within 2 s, all valid readings.",
  ];
  for (const text of expected) {
    const found = result.findings.some((finding) => finding.startsWith(`ok       ${text}`));
    assert.ok(found, `${text}\n${result.findings.join("\n")}`);
  }
  if (broker.kind === "mosquitto") {
    assert.match(result.findings.join("\n"), /^note {5}Broker limits: .*max_queued_messages.*$/m);
  }
  assert.equal(await database.countReadings(), 0);
});

interface DatabaseCase {
  readonly name: string;
  readonly env?: LoggerEnv;
  readonly sql?: string;
  readonly options?: { readonly valueType?: string; readonly uniqueKey?: boolean };
  readonly problems: readonly RegExp[];
}

const DATABASE_CASES: readonly DatabaseCase[] = [
  {
    name: "a wrong password",
    env: { DATABASE_PASSWORD: "wrong" },
    problems: [
      /Database 'sensors \d+' .*password authentication failed.*check .*DATABASE_PASSWORD/,
    ],
  },
  {
    name: "a host that does not exist",
    env: { DATABASE_HOST: "nowhere.invalid" },
    problems: [/Database .* at 'nowhere\.invalid:\d+': the host name /],
  },
  {
    name: "a port without a listener",
    env: { DATABASE_PORT: String(findFreePort()) },
    problems: [/Database .*: connection refused/],
  },
  {
    name: "a database that does not exist",
    env: { DATABASE_NAME: "nothing" },
    problems: [/Database 'nothing' .*"nothing" does not exist \(check DATABASE_NAME\)\.$/],
  },
  {
    name: "missing tables",
    sql: "DROP TABLE sensor_data, sensors",
    problems: [/the table '\w+' does not exist.*'kraken-logger init' creates the tables/],
  },
  {
    name: "a missing privilege",
    sql: "REVOKE INSERT ON sensor_data FROM kraken",
    problems: [/Privileges: INSERT ON sensor_data is missing\. .*GRANT INSERT ON sensor_data TO/],
  },
  {
    name: "a missing unique key",
    options: { uniqueKey: false },
    problems: [/Unique key: none .*ALTER TABLE sensor_data ADD UNIQUE \(sensor_id, time\);$/],
  },
  {
    name: "no sensors",
    sql: "DELETE FROM sensors",
    problems: [/Sensors: 0 registered, none enabled.*INSERT INTO sensors/],
  },
  {
    name: "disabled sensors only",
    sql: "UPDATE sensors SET enabled = false",
    problems: [/Sensors: 10 registered, none enabled/],
  },
  {
    name: "a sensor that is registered twice",
    sql: `ALTER TABLE sensors DROP CONSTRAINT sensors_uuid_sensor_sid_key;
      INSERT INTO sensors (uuid, sensor_sid) SELECT uuid, sensor_sid FROM sensors LIMIT 1`,
    problems: [/Sensors: 1 .*ALTER TABLE sensors ADD UNIQUE \(uuid, sensor_sid\);$/],
  },
  {
    name: "an unusable type of column",
    options: { valueType: "text" },
    problems: [/the column sensor_data\.value has the type text, the logger requires double/],
  },
  {
    name: "a column that the logger does not fill",
    sql: "ALTER TABLE sensor_data ADD COLUMN location text NOT NULL, ADD COLUMN mark integer " +
      "NOT NULL DEFAULT 1, ADD COLUMN note text",
    problems: [/Schema: the column sensor_data\.location is NOT NULL without a default/],
  },
  {
    name: "a database that is read-only",
    sql: "ALTER DATABASE :name SET default_transaction_read_only = on",
    problems: [
      /Server: transactions are read-only by default\. Set default_transaction_read_only to off/,
    ],
  },
];

Deno.test("check names each mistake at the database, and its remedy", async (test) => {
  await using broker = await startBroker();
  const results = new Map<DatabaseCase, CheckResult>();
  await runAll(DATABASE_CASES.map((item) => async () => {
    const database = await postgres.createDatabase(item.options);
    await database.query((item.sql ?? "").replace(":name", `"${database.name}"`));
    results.set(item, await check(loggerEnv({ database, broker }, item.env)));
  }));
  for (const [item, result] of results) {
    await test.step(item.name, () => assertProblems(result, ...item.problems));
  }
  assert.equal(results.size, DATABASE_CASES.length);
});

Deno.test("check names each mistake at the broker, and its remedy", {
  ignore: lacks("mosquitto"),
}, async (test) => {
  const database = await postgres.createDatabase();
  const users = { kraken: "right" };
  await using broker = await startMosquitto();
  await using strict = await startMosquitto({ users });
  await using lesser = await startMosquitto({ maxQos: 1 });
  await using refusing = await startScriptedBroker({ grant: () => 0x87 });
  await using forgetful = await startScriptedBroker({ grant: () => 0 });
  await publishPayloads(broker, ["21.5", "{}"], { retain: true, topic: "sensors/odd" });
  await publishReadings(broker, makeReadings({ count: 1 }), { retain: true });
  const env = (overrides: LoggerEnv, target: { host: string; port: number } = broker): LoggerEnv =>
    loggerEnv({ database, broker: target }, overrides);
  const login = { MQTT_CLIENT_USER: "kraken", MQTT_CLIENT_PASSWORD: "wrong" };
  const dead = findFreePort();
  const cases: [string, LoggerEnv, RegExp[], RegExp?][] = [
    ["a wrong password", env(login, strict), [/Broker .*: not authorized \(.*password/]],
    ["no login where one is needed", env({}, strict), [/Broker .*: not authorized/]],
    ["no broker listening", env({ MQTT_PORT: String(dead) }), [/Broker .*: connection refused/]],
    [
      "one of two hosts down",
      env({ MQTT_HOST: `${LOOPBACK}:${dead},${LOOPBACK}:${broker.port}` }),
      [/Broker '127\.0\.0\.1:\d+': connection refused/],
      /^ok {7}Subscription 'sensors\/#': granted with QoS 2\.$/m,
    ],
    ["a refused subscription", env({}, refusing), [
      /Subscription 'sensors\/#': refused, not authorized .*access list, or correct MQTT_TOPIC\.$/,
    ]],
    ["QoS 0 in place of 2", env({}, forgetful), [/only QoS 0\. Messages are lost.*Allow QoS 1/]],
    [
      "QoS 1 in place of 2",
      env({}, lesser),
      [],
      /^note .*QoS 1 instead of 2\. QoS 1 loses no message\.$/m,
    ],
    ["QoS 0 by choice", env({ MQTT_QOS: "0" }), [/MQTT_QOS=0 .*Set MQTT_QOS to 1 or 2\.$/]],
    ["no client id", env({ MQTT_CLIENT_ID: "" }), [
      /Session: MQTT_CLIENT_ID is not set\. Messages .* are lost/,
    ]],
    [
      "messages that are not readings",
      env({}),
      [],
      /^note {5}Messages: 2 within 2 s\. 1 would be rejected.*'sensors\/odd': \w+ is missing/m,
    ],
    [
      "no messages",
      env({ MQTT_TOPIC: "sensor/#" }),
      [],
      /^note {5}Messages: none within 2 s\. .*MQTT_TOPIC \(sensor\/#\)/m,
    ],
  ];
  const results: CheckResult[] = [];
  await runAll(cases.map(([, env], index) => async () => {
    results[index] = await check(env);
  }));
  for (const [index, [name, , problems, line]] of cases.entries()) {
    await test.step(name, () => {
      const result = results[index];
      assert.ok(result !== undefined);
      assertProblems(result, ...problems);
      if (line !== undefined) assert.match(result.findings.join("\n"), line);
    });
  }
});

Deno.test("check takes no message from a running logger, and stores nothing", {
  ignore: lacks("mosquitto"),
}, async () => {
  await using broker = await startTellingMosquitto();
  const database = await postgres.createDatabase();
  const env = loggerEnv({ database, broker }, { MQTT_SHARED_GROUP: "loggers" });
  await using logger = startLogger(env);
  await waitForSubscription(broker, { filter: "$share/loggers/sensors/#" });
  const readings: Reading[] = [];
  let isChecking = true;
  const checking = check(env).finally(() => isChecking = false);
  // However long the check takes to start: there are messages all the time.
  for (let seed = 1; isChecking; seed++) {
    const some = makeReadings({ count: 60, seed, startTimeUs: BigInt(seed) * 1_000_000_000n });
    await publishReadings(broker, some, { rate: 60 });
    readings.push(...some);
  }
  const result = await checking;
  assertProblems(result);
  const seen = /Messages: (\d+) within/.exec(result.findings.join("\n"))?.[1];
  assert.ok(Number(seen) > 0, "the check has received no messages");
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  const counts = await stopCleanly(logger);
  assert.equal(counts.received, readings.length);
  onlyLine(logger, "INFO", /^Connected to MQTT broker/);
  assert.deepEqual([...linesOf(logger, "ERROR"), ...linesOf(logger, "WARNING")], []);
});

Deno.test("check reports whether run can create a missing spool directory", async () => {
  await using broker = await startBroker();
  const database = await postgres.createDatabase();
  const root = Deno.makeTempDirSync({ prefix: "kraken-test-" });
  try {
    Deno.writeTextFileSync(`${root}/file`, "");
    Deno.symlinkSync(`${root}/nothing`, `${root}/link`);
    Deno.mkdirSync(`${root}/closed`, { mode: 0o500 });
    const cannot = "does not exist, and 'run' cannot create it in";
    const cases: [string, string | null][] = [
      ["new/state/spool", null],
      ["file/spool", "cannot be used (Not a directory). Correct SPOOL_DIRECTORY, "],
      ["link", `${cannot} '${root}/link' (No such file or directory).`],
      ["link/state/spool", `${cannot} '${root}/link' (No such file or directory).`],
    ];
    // Root ignores the mode of a directory.
    if (Deno.uid() !== 0) {
      cases.push(["closed/spool", `${cannot} '${root}/closed' (Permission denied).`]);
    }
    await runAll(cases.map(([name, problem]) => async () => {
      const SPOOL_DIRECTORY = `${root}/${name}`;
      const env = loggerEnv({ database, broker }, { SPOOL_DIRECTORY });
      await expectSpoolFinding(env, problem);
    }));
    const left = [...Deno.readDirSync(root)].map(({ name }) => name).sort();
    assert.deepEqual(left, ["closed", "file", "link", "new"]);
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
});

/** Asserts what `check` reports about the spool, and that `run` starts if and only if it is usable. */
async function expectSpoolFinding(env: LoggerEnv, problem: string | null): Promise<void> {
  const subject = `Spool in '${env["SPOOL_DIRECTORY"]}': `;
  const result = await check(env);
  const findings = result.findings.filter((finding) => finding.includes(subject));
  await using logger = startLogger(env);
  if (problem === null) {
    assertProblems(result);
    assert.deepEqual(findings, [`note     ${subject}does not exist yet; 'run' creates it.`]);
    await logger.waitForLine("Connected to MQTT broker");
    await stopCleanly(logger);
  } else {
    assertProblems(result, / Spool in /);
    const [finding = ""] = findings;
    assert.ok(finding.startsWith(`PROBLEM  ${subject}${problem}`), finding);
    assert.equal((await logger.exited).code, 1);
    await logger.waitForLine(/ CRITICAL Cannot use the spool in /);
  }
}
