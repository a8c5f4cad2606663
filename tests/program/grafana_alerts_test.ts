/**
 * The alert rules that Grafana is provisioned with. Their queries are sent to a real Prometheus, which
 * reads the metrics of a real logger, and to a real PostgreSQL. The results are evaluated as Grafana
 * does it, because Grafana itself is not available to the tests.
 */
import assert from "node:assert/strict";
import { parse, stringify } from "yaml";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { waitUntil } from "../support/poll.ts";
import { findFreePort, LOOPBACK } from "../support/ports.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
import { runSuccessfully, TestProcess } from "../support/process.ts";
import { lacks, requireProgram } from "../support/programs.ts";
import { publishPayloads, publishReadings } from "../support/publisher.ts";
import { makeReadings } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  type Ask,
  askTable,
  createGrafanaRole,
  DEPLOY,
  type Document,
  findFiring,
  readDeployed,
  rules,
  targets,
} from "./grafana_files.ts";
import {
  createSession,
  SENSORS,
  stopCleanly,
  usePostgres,
  waitForRows,
} from "../support/harness.ts";

const postgres = usePostgres();

function findRule(name: string): Document {
  return rules.find(({ uid }) => uid === name) ?? assert.fail(name);
}

Deno.test("Prometheus accepts its configuration", {
  ignore: lacks("promtool"),
}, async () => {
  const { pathname } = new URL("prometheus/prometheus.yml", DEPLOY);
  await runSuccessfully(requireProgram("promtool"), { args: ["check", "config", pathname] });
});

/** A Prometheus whose targets are in a file, because the names of Docker do not resolve here. */
class Prometheus implements AsyncDisposable {
  readonly #directory = withTemporaryDirectory();
  readonly #port = findFreePort();
  readonly #process: TestProcess;

  constructor(targets: Readonly<Record<string, string>>) {
    const { path } = this.#directory;
    this.setTargets(targets);
    const config = parse(readDeployed("prometheus/prometheus.yml"));
    config.global.scrape_interval = "1s";
    const [job] = config.scrape_configs;
    delete job.dns_sd_configs;
    job.file_sd_configs = [{ files: [`${path}/targets.json`], refresh_interval: "1s" }];
    Deno.writeTextFileSync(`${path}/prometheus.yml`, stringify(config));
    this.#process = TestProcess.start(requireProgram("prometheus"), {
      args: [
        `--config.file=${path}/prometheus.yml`,
        `--storage.tsdb.path=${path}/data`,
        `--web.listen-address=${LOOPBACK}:${this.#port}`,
      ],
    });
  }

  /** The targets by name, as in Docker's name service: a stopped container has no name. */
  setTargets(targets: Readonly<Record<string, string>>): void {
    const found = Object.entries(targets).map(([name, address]) => ({
      targets: [address],
      labels: { __meta_dns_name: name },
    }));
    Deno.writeTextFileSync(`${this.#directory.path}/targets.json`, JSON.stringify(found));
  }

  readonly ask: Ask = async ({ model: { expr } }) => {
    const query = new URLSearchParams({ query: expr });
    const response = await fetch(`http://${LOOPBACK}:${this.#port}/api/v1/query?${query}`);
    const answer = await response.json();
    assert.equal(answer.status, "success", `${expr}: ${answer.error}`);
    return answer.data.result.map(({ metric, value: [, value] }: Document) => {
      const { __name__: _, ...labels } = metric;
      return { labels, value: Number(value) };
    });
  };

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGTERM");
    await this.#process.finished();
    await this.#process[Symbol.asyncDispose]();
    this.#directory[Symbol.dispose]();
  }
}

Deno.test("the rules about the logger fire on a problem, and only then", {
  ignore: lacks("prometheus"),
}, async () => {
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  const role = await createGrafanaRole(database);
  await using broker = await startBroker();
  await createSession(broker);
  const httpPort = findFreePort();
  await using logger = startLogger(loggerEnv({ database, broker }, {
    HTTP_PORT: String(httpPort),
    SPOOL_DIRECTORY: `${directory.path}/spool`,
  }));
  await logger.waitForLine("Connected to database");
  await logger.waitForLine("Connected to MQTT broker");
  await using prometheus = new Prometheus({ logger: `${LOOPBACK}:${httpPort}` });
  const ask: Ask = async (query) => {
    const byTable = query.datasourceUid === "kraken-readings";
    return await (byTable ? askTable(role) : prometheus.ask)(query);
  };
  const findNames = async (): Promise<string[]> => {
    const names = [];
    for (const rule of rules) {
      if ((await findFiring(rule, ask)).length > 0) names.push(rule.uid);
    }
    return names;
  };
  const expressions = targets.filter(({ expr }) => expr !== undefined);
  assert.ok(expressions.length >= 10);
  await waitUntil(async () => {
    await publishReadings(broker, makeReadings({ count: 10, startTimeUs: nowUs() }));
    for (const model of expressions) {
      if ((await prometheus.ask({ model })).length === 0) return false;
    }
    return true;
  }, { what: "a result of every query of the dashboard", timeoutMs: 180_000, intervalMs: 500 });
  await waitForRows(database, 10);
  await waitUntil(async () => (await prometheus.ask({ model: { expr: "up" } })).length > 0);
  assert.deepEqual(await findNames(), []);
  const waitForNames = async (names: readonly string[]): Promise<void> => {
    await waitUntil(async () => {
      const firing = await findNames();
      return names.every((name) => firing.includes(name));
    }, { what: `the rules ${names.join(" and ")}`, timeoutMs: 180_000, intervalMs: 200 });
  };
  await publishPayloads(broker, ["garbage"]);
  await waitForNames(["messages-rejected"]);
  await postgres.server.stop();
  try {
    await publishReadings(broker, makeReadings({ count: 20, startTimeUs: 1n }));
    await waitForNames(["logger-not-ready", "spool-growing"]);
    // These two rules report that the queries about sensors fail.
    assert.ok(!(await findNames()).includes("sensor-silent"));
  } finally {
    await postgres.server.start();
  }
  await stopCleanly(logger);
  await waitForNames(["logger-down"]);
  const [{ instance } = {}] = await findFiring(findRule("logger-down"), ask);
  assert.equal(instance, "logger");
  // A stopped container has no address.
  prometheus.setTargets({});
  await waitUntil(async () => (await prometheus.ask({ model: { expr: "up" } })).length === 0, {
    what: "Prometheus to forget the logger",
    timeoutMs: 180_000,
  });
  assert.deepEqual(await findFiring(findRule("logger-down"), ask), [{
    instance: "logger",
    job: "kraken-logger",
  }]);
});

Deno.test("the rule about the logger fires if Prometheus has no logger", async () => {
  const firing = await findFiring(findRule("logger-down"), () => Promise.resolve([]));
  assert.equal(firing.length, 1);
});

function nowUs(): bigint {
  return BigInt(Date.now() - 10_000) * 1000n;
}

/** Adds readings of a sensor at its usual interval, the last one some minutes ago. */
async function addReadings(
  database: TestDatabase,
  uuid: string,
  { lastMinutes, stepMinutes }: { readonly lastMinutes: number; readonly stepMinutes: number },
): Promise<void> {
  await database.query(
    `INSERT INTO sensor_data
     SELECT now() - $2::float8 * interval '1 min' - step * $3::float8 * interval '1 min', id, 1
     FROM sensors, generate_series(0, 30) AS step WHERE uuid = $1`,
    [uuid, lastMinutes, stepMinutes],
  );
}

Deno.test("an enabled sensor is reported as silent by its usual interval", async () => {
  const database = await postgres.createDatabase({});
  const role = await createGrafanaRole(database);
  const rule = findRule("sensor-silent");
  const findSilent = async (): Promise<string[]> =>
    (await findFiring(rule, askTable(role))).map(({ sensor = "" }) => sensor);
  await database.query("UPDATE sensors SET enabled = false");
  assert.deepEqual(await findSilent(), []);
  const cases = [
    { label: "fast", lastMinutes: 0, stepMinutes: 1 / 60, isSilent: false },
    { label: "fast, a moment ago", lastMinutes: 9, stepMinutes: 1 / 60, isSilent: false },
    { label: "fast, gone", lastMinutes: 11, stepMinutes: 1 / 60, isSilent: true },
    { label: "slow", lastMinutes: 14, stepMinutes: 15, isSilent: false },
    { label: "slow, gone", lastMinutes: 100, stepMinutes: 15, isSilent: true },
    { label: "long gone", lastMinutes: 60 * 24 * 30, stepMinutes: 1, isSilent: true },
    { label: "clock of next year", lastMinutes: -60 * 24 * 365, stepMinutes: 1, isSilent: true },
  ];
  for (const [index, { label, ...readings }] of cases.entries()) {
    const sensor = SENSORS[index] ?? assert.fail();
    await database.registerSensors([{ ...sensor, label, enabled: true }]);
    await addReadings(database, sensor.uuid, readings);
  }
  const [never, disabled] = SENSORS.slice(-2);
  assert.ok(never && disabled);
  await database.registerSensors([{ ...never, label: "never there", enabled: true }]);
  await addReadings(database, disabled.uuid, { lastMinutes: 100, stepMinutes: 1 });
  const expected = cases.filter(({ isSilent }) => isSilent).map(({ label }) => label);
  assert.deepEqual(await findSilent(), [...expected, "never there"].sort());
  // Two sensors with the same label, or no column for labels, cause no error.
  await database.query("UPDATE sensors SET label = 'Oven'");
  assert.deepEqual(await findSilent(), Array(5).fill("Oven"));
  await database.query("ALTER TABLE sensors DROP COLUMN label");
  assert.ok((await findSilent()).includes(`${never.uuid} ${never.sid}`));
});

Deno.test("a silent sensor is reported also after a restart of the logger", async () => {
  const database = await postgres.createDatabase();
  const role = await createGrafanaRole(database);
  const rule = findRule("sensor-silent");
  const [silent, lively] = SENSORS;
  assert.ok(silent && lively);
  await database.query("UPDATE sensors SET enabled = uuid = ANY ($1)", [
    [silent.uuid, lively.uuid],
  ]);
  await using broker = await startBroker();
  await createSession(broker);
  const env = loggerEnv({ database, broker });
  const startTimeUs = nowUs() - 3600n * 1_000_000n;
  const publish = async (sensor: typeof silent, startUs: bigint): Promise<void> => {
    await publishReadings(
      broker,
      makeReadings({ count: 3, startTimeUs: startUs, sensors: [sensor] }),
    );
  };
  const findSilent = async (): Promise<string[]> =>
    (await findFiring(rule, askTable(role))).map(({ uuid = "" }) => uuid);
  {
    await using logger = startLogger(env);
    await logger.waitForLine("Connected to MQTT broker");
    await publish(silent, startTimeUs);
    await publish(lively, nowUs());
    await waitForRows(database, 6);
    assert.deepEqual(await findSilent(), [silent.uuid]);
    await stopCleanly(logger);
  }
  await using again = startLogger(env);
  await again.waitForLine("Connected to MQTT broker");
  await publish(lively, nowUs() + 5_000_000n);
  await waitForRows(database, 9);
  assert.deepEqual(await findSilent(), [silent.uuid]);
  // It is no longer reported after it has published again.
  await publish(silent, nowUs());
  await waitForRows(database, 12);
  assert.deepEqual(await findSilent(), []);
  await stopCleanly(again);
});
