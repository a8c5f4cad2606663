/**
 * The log as text and as JSON: its format, the lines that DEBUG adds, and that it has no secrets.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { publishPayloads, publishReadings } from "../support/publisher.ts";
import { makeReadings } from "../support/readings.ts";
import {
  createSession,
  linesOf,
  stopCleanly,
  usePostgres,
  waitForRows,
} from "../support/harness.ts";

const TEXT =
  /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) {1,6}\S.*\.$/;

const postgres = usePostgres();

Deno.test("text lines have time, level and a sentence; by default only connections are logged", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(loggerEnv({ database, broker }));
  await publishReadings(broker, makeReadings({ count: 100 }));
  await waitForRows(database, 100);
  await broker.restart();
  await logger.waitForLine("MQTT broker '127.0.0.1", { from: 3 });
  await logger.waitForLine("Connected to MQTT broker", { from: 3 });
  await stopCleanly(logger);
  logger.lines.forEach((line) => assert.match(line, TEXT));
  const about = /^(Connected to|MQTT broker|Received SIG|Stopped: )/;
  const lines = [...linesOf(logger, "INFO"), ...linesOf(logger, "ERROR")];
  assert.deepEqual(lines.filter((line) => !about.test(line)), []);
  assert.equal(lines.length, logger.lines.length);
});

Deno.test("JSON lines are objects with time, level and message, whatever a payload contains", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const env = loggerEnv({ database, broker }, {
    APPLICATION_LOG_FORMAT: "json",
    APPLICATION_LOG_LEVEL: "debug",
  });
  await using logger = startLogger(env);
  const nasty = [
    'line\nbreak "quoted" \\ \u2028 \u0000 \u001b[31m é',
    "\r\n{}",
    '{"level": "CRITICAL"}',
  ];
  await publishPayloads(broker, nasty);
  await publishReadings(broker, makeReadings({ count: 3 }));
  await waitForRows(database, 3);
  assert.equal(await logger.stop(), 0);
  const levels = logger.lines.map((line) => {
    const { time, level, message, ...others } = JSON.parse(line) as Record<string, string>;
    assert.deepEqual(others, {});
    assert.match(time ?? "", /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    assert.ok(message && message.length > 0);
    return level;
  });
  assert.deepEqual(new Set(levels), new Set(["DEBUG", "INFO", "WARNING"]));
  assert.equal(levels.filter((level) => level === "WARNING").length, nasty.length);
});

Deno.test("DEBUG logs every received and every stored reading", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const env = loggerEnv({ database, broker }, { APPLICATION_LOG_LEVEL: "10" });
  await using logger = startLogger(env);
  const readings = makeReadings({ count: 200 });
  await publishReadings(broker, readings);
  await waitForRows(database, readings.length);
  await stopCleanly(logger);
  const lines = linesOf(logger, "DEBUG");
  for (const { uuid, sid, value } of readings) {
    const received = `Received on 'sensors/test/${uuid}/${sid}': {"timestamp"`;
    assert.ok(
      lines.some((line) => line.startsWith(received) && line.includes(`"value": ${value},`)),
    );
    assert.ok(
      lines.some((line) => line.startsWith(`Stored sensor ${uuid} sid ${sid}: ${value} at`)),
    );
  }
});

Deno.test("no secret is in the log at any level, whether connections are accepted or refused", async () => {
  const database = await postgres.createDatabase();
  const secrets = {
    DATABASE_USER: "secret_role",
    DATABASE_PASSWORD: "Database-Pa55",
    MQTT_CLIENT_USER: "secret-daemon",
    MQTT_CLIENT_PASSWORD: "Broker-Pa55",
  };
  await using broker = await startBroker({ users: { "secret-daemon": "Broker-Pa55" } });
  await database.query(`
    CREATE ROLE secret_role LOGIN PASSWORD 'Database-Pa55' IN ROLE ${database.logger.user}`);
  const env = loggerEnv({ database, broker }, { APPLICATION_LOG_LEVEL: "DEBUG", ...secrets });
  const output: string[] = [];
  for (
    const [overrides, said] of [
      [{}, "Connected to database"],
      [
        { DATABASE_PASSWORD: "Wr0ng-database" },
        /Database .* is not available: .*authentication failed/,
      ],
      [{ DATABASE_USER: "secret_other" }, /Database .* is not available: .*authentication failed/],
      [{ MQTT_CLIENT_PASSWORD: "Wr0ng-broker" }, /MQTT broker .* is not available: .*password/],
      [{ DATABASE_NAME: "elsewhere" }, /Database .* is not available/],
    ] as const
  ) {
    await using logger = startLogger({ ...env, ...overrides });
    await logger.waitForLine(said);
    if (said === "Connected to database") await logger.waitForLine("Connected to MQTT broker");
    await stopCleanly(logger);
    output.push(...logger.lines);
  }
  const secret = /Pa55|Wr0ng|secret_role|secret_other|secret-daemon/;
  assert.deepEqual(output.filter((line) => secret.test(line)), []);
});
