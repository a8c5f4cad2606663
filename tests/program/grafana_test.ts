/**
 * What Grafana is provisioned with: its questions asked of a real PostgreSQL, with Grafana's macros
 * written out, and of a real Prometheus that reads the metrics of a real logger. Grafana itself
 * cannot be had here.
 */
import assert from "node:assert/strict";
import { parse } from "yaml";
import { startBroker } from "../services/broker.ts";
import { loggerEnv, startLogger } from "../services/logger_process.ts";
import { waitUntil } from "../services/poll.ts";
import { findFreePort, LOOPBACK } from "../services/ports.ts";
import { runProgram, TestProcess } from "../services/process.ts";
import { findProgram } from "../services/programs.ts";
import { publishPayloads, publishReadings } from "../services/publisher.ts";
import { makeReadings } from "../services/readings.ts";
import { runSql } from "../services/sql.ts";
import { withTemporaryDirectory } from "../services/temporary_directory.ts";
import { SENSORS, stopCleanly, usePostgres, waitForRows } from "./harness.ts";

const ROOT = new URL("../../deploy/", import.meta.url);

// deno-lint-ignore no-explicit-any
type Document = any;

const read = (path: string): string => Deno.readTextFileSync(new URL(path, ROOT));
const dashboards: Document[] = ["readings", "logger"].map((name) =>
  JSON.parse(read(`grafana/dashboards/${name}.json`))
);
const sources: Document[] = parse(read("grafana/provisioning/datasources/kraken.yml")).datasources;
const rules: Document[] = parse(read("grafana/provisioning/alerting/kraken.yml")).groups[0].rules;
const targets: Document[] = dashboards.flatMap(({ panels }) =>
  panels.flatMap(({ targets }: Document) => targets)
);

const postgres = usePostgres();
const withoutPrometheus = findProgram("prometheus") === null && Deno.env.get("CI") !== "true";

Deno.test("dashboards and rules have names of their own, and sources that are there", () => {
  const uids = [...dashboards, ...rules].map(({ uid }) => uid);
  assert.equal(new Set(uids).size, uids.length);
  const known = [...sources.map(({ uid }) => uid), "__expr__"];
  for (const { datasource } of targets) assert.ok(known.includes(datasource.uid));
  for (const { data, condition, annotations } of rules) {
    assert.ok(data.every(({ datasourceUid }: Document) => known.includes(datasourceUid)));
    assert.ok(data.some(({ refId }: Document) => refId === condition));
    assert.ok(annotations.summary.length > 20);
  }
  for (const { panels } of dashboards) {
    const ids = panels.map(({ id }: Document) => id);
    assert.equal(new Set(ids).size, ids.length);
    for (const { gridPos: { x, w } } of panels) assert.ok(x + w <= 24);
  }
});

/** JSON has texts where the types have enumerations. */
const TYPES = `import type { Dashboard } from "@grafana/schema";
type Plain<T> = T extends string ? \`\${T}\`
  : T extends number | boolean | null | undefined ? T
  : T extends readonly (infer Item)[] ? Plain<Item>[]
  : T extends object ? { [Name in keyof T]: Plain<T[Name]> }
  : T;
`;

/** What is wrong with dashboards by the types of Grafana's own schema; empty if nothing is. */
async function checkDashboards(values: readonly Document[]): Promise<string> {
  using directory = withTemporaryDirectory();
  const path = `${directory.path}/dashboards.ts`;
  const text = values.map((value) =>
    `export const _: Plain<Dashboard> = ${JSON.stringify(value)};\n`
  )
    .map((line, index) => line.replace("_", `dashboard${index}`));
  Deno.writeTextFileSync(path, TYPES + text.join(""));
  const config = new URL("../../deno.json", import.meta.url).pathname;
  const { code, stdout, stderr } = await runProgram(Deno.execPath(), {
    args: ["check", "--quiet", "--config", config, path],
    env: { NO_COLOR: "1" },
  });
  return code === 0 ? "" : stdout + stderr;
}

Deno.test("the dashboards are such by the types of Grafana's schema", async () => {
  assert.equal(await checkDashboards(dashboards), "");
  const [first] = dashboards;
  const broken = { ...first, panels: [{ ...first.panels[0], gridPos: { x: "left" } }] };
  assert.match(await checkDashboards([broken]), /TS2322/);
});

Deno.test("the composition for monitoring mounts files that are there, and names its secrets", () => {
  const { services, secrets } = parse(read("compose/monitoring.yml"));
  const mounts = Object.values(services).flatMap(({ volumes = [] }: Document) => volumes)
    .map((volume: string) => volume.split(":")[0] ?? "").filter((path) => path.startsWith("."));
  assert.ok(mounts.length >= 4);
  for (const path of mounts) assert.ok(Deno.statSync(new URL(`compose/${path}`, ROOT)), path);
  const named = [
    ...Object.keys(secrets),
    ...Object.keys(parse(read("compose/docker-compose.yml")).secrets),
  ];
  for (const { secrets: used = [] } of Object.values(services) as Document[]) {
    for (const name of used) assert.ok(named.includes(name), name);
  }
  const [readings] = sources;
  const file = /^\$__file\{\/run\/secrets\/(\w+)\}$/.exec(readings.secureJsonData.password)?.[1];
  assert.ok(services.grafana.secrets.includes(file));
  assert.match(
    read("compose/database/create_grafana_role.sql"),
    new RegExp(`CREATE ROLE ${readings.user} `),
  );
});

/** Grafana's macros for PostgreSQL, as its manual has them. */
function expand(sql: string, sensors: readonly number[]): string {
  return sql
    .replaceAll(
      /\$__timeGroupAlias\((\w+), \$__interval\)/g,
      'floor(extract(epoch from $1)/60)*60 AS "time"',
    )
    .replaceAll(
      /\$__timeFilter\((\w+)\)/g,
      "$1 BETWEEN '2023-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z'",
    )
    .replaceAll("$sensor", sensors.join(","));
}

Deno.test("the questions about readings are answered to Grafana's role, which can only read", async () => {
  const database = await postgres.createDatabase();
  const [sensor] = SENSORS;
  assert.ok(sensor);
  await database.registerSensors([{ ...sensor, label: "Oven" }]);
  await database.query("INSERT INTO sensor_data SELECT now(), id, 21.5 FROM sensors");
  const script = read("compose/database/create_grafana_role.sql").split("\n")
    .filter((line) => !line.startsWith("\\set") && !line.startsWith("--")).join("\n")
    .replace(":'password'", "'grafana'");
  await database.query(script);
  // The databases of the tests let nobody in who is not named.
  await database.query(`GRANT CONNECT ON DATABASE "${database.name}" TO grafana`);
  await database.query("GRANT USAGE ON SCHEMA public TO grafana");
  const role = { ...database.logger, user: "grafana", password: "grafana" };
  const { list: [variable] } = dashboards[0].templating;
  const choices = await runSql(role, variable.query);
  assert.ok(choices.some(({ __text }) => __text === "Oven"));
  const ids = choices.map(({ __value }) => Number(__value));
  const questions = targets.filter(({ rawSql }) => rawSql !== undefined);
  assert.equal(questions.length, 2);
  for (const { rawSql } of questions) {
    const rows = await runSql(role, expand(rawSql, ids));
    assert.equal(rows.length, SENSORS.length);
    const [oven] = rows.filter((row) => Object.values(row).includes("Oven"));
    assert.equal(oven?.["value"], 21.5);
  }
  await assert.rejects(runSql(role, "DELETE FROM sensor_data"), { code: "42501" });
});

Deno.test("the questions about the logger are answered by Prometheus", {
  ignore: withoutPrometheus,
}, async () => {
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  const [httpPort, port] = [findFreePort(), findFreePort()];
  await using logger = startLogger(loggerEnv({ database, broker }, {
    HTTP_PORT: String(httpPort),
    SPOOL_DIRECTORY: `${directory.path}/spool`,
  }));
  await logger.waitForLine("Connected to database");
  await logger.waitForLine("Connected to MQTT broker");
  const config = read("prometheus/prometheus.yml")
    .replace("logger:8080", `${LOOPBACK}:${httpPort}`).replace("15s", "1s");
  Deno.writeTextFileSync(`${directory.path}/prometheus.yml`, config);
  await using prometheus = TestProcess.start("prometheus", {
    args: [
      `--config.file=${directory.path}/prometheus.yml`,
      `--storage.tsdb.path=${directory.path}/data`,
      `--web.listen-address=${LOOPBACK}:${port}`,
    ],
  });
  const ask = async (expression: string): Promise<Document[]> => {
    const url = `http://${LOOPBACK}:${port}/api/v1/query?query=${encodeURIComponent(expression)}`;
    const answer = await (await fetch(url)).json();
    assert.equal(answer.status, "success", `${expression}: ${answer.error}`);
    return answer.data.result;
  };
  const count = async (expression: string): Promise<number> => {
    try {
      return (await ask(expression)).length;
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      return 0; // Not there yet.
    }
  };
  const expressions = targets.map(({ expr }) => expr).filter((expr) => expr !== undefined);
  assert.ok(expressions.length >= 10);
  let startTimeUs = BigInt(Date.now()) * 1000n;
  await waitUntil(async () => {
    startTimeUs += 1_000_000n;
    await publishReadings(broker, makeReadings({ count: 10, startTimeUs }));
    const counts = await Promise.all(expressions.map(count));
    return counts.every((number) => number > 0);
  }, { what: "an answer to every question", timeoutMs: 60_000, intervalMs: 500 });
  await waitForRows(database, 10);
  const firing = async (): Promise<string[]> => {
    const names = [];
    for (const { uid, data: [{ model }] } of rules) {
      if ((await ask(model.expr)).length > 0) names.push(uid);
    }
    return names;
  };
  assert.deepEqual(await firing(), []);
  await publishPayloads(broker, ["garbage"]);
  await waitUntil(async () => (await firing()).includes("messages-rejected"), {
    what: "the rule about rejected messages",
    timeoutMs: 30_000,
  });
  await postgres.server.stop();
  await publishReadings(broker, makeReadings({ count: 20, startTimeUs: 1n }));
  await waitUntil(async () => {
    const names = await firing();
    return names.includes("logger-not-ready") && names.includes("spool-growing");
  }, { what: "the rules about the outage", timeoutMs: 40_000 });
  await postgres.server.start();
  await stopCleanly(logger);
  await waitUntil(async () => (await firing()).includes("logger-down"), {
    what: "the rule about the end",
    timeoutMs: 30_000,
  });
  prometheus.kill("SIGTERM");
  await prometheus.exited;
});
