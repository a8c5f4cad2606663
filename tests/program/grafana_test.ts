/**
 * The dashboards that Grafana is provisioned with. Their queries are sent to a real PostgreSQL, with
 * Grafana's macros expanded, because Grafana itself is not available to the tests.
 */
import assert from "node:assert/strict";
import { parse } from "yaml";
import type { TestDatabase } from "../support/postgres_database.ts";
import { runProgram } from "../support/process.ts";
import { runSql, type SqlRow, type SqlTarget } from "../support/sql.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  createGrafanaRole,
  dashboards,
  DEPLOY,
  type Document,
  expand,
  readDeployed,
  rules,
  sources,
  targets,
} from "./grafana_files.ts";
import { SENSORS, usePostgres } from "../support/harness.ts";

const postgres = usePostgres();

Deno.test("dashboards and rules have unique names, and data sources that exist", () => {
  const uids = [...dashboards, ...rules].map(({ uid }) => uid);
  assert.equal(new Set(uids).size, uids.length);
  const known = [...sources.map(({ uid }) => uid), "__expr__"];
  for (const { datasource } of targets) assert.ok(known.includes(datasource.uid));
  for (const { data, condition, annotations } of rules) {
    assert.ok(data.every(({ datasourceUid }: Document) => known.includes(datasourceUid)));
    const [question, threshold] = data;
    assert.deepEqual([threshold.refId, threshold.model.expression], [condition, question.refId]);
    for (const { refId, model } of data) assert.equal(model.refId, refId);
    assert.ok(annotations.summary.length > 20);
  }
  for (const { panels } of dashboards) {
    const ids = panels.map(({ id }: Document) => id);
    assert.equal(new Set(ids).size, ids.length);
    for (const { gridPos: { x, w } } of panels) assert.ok(x + w <= 24);
  }
});

/** The types have enumerations, where the JSON has texts. */
const TYPES = `import type { Dashboard } from "@grafana/schema";
type Plain<T> = T extends string ? \`\${T}\`
  : T extends number | boolean | null | undefined ? T
  : T extends readonly (infer Item)[] ? Plain<Item>[]
  : T extends object ? { [Name in keyof T]: Plain<T[Name]> }
  : T;
`;

/** The violations of the types of Grafana's schema in dashboards; empty if there are none. */
async function checkDashboards(values: readonly Document[]): Promise<string> {
  using directory = withTemporaryDirectory();
  const path = `${directory.path}/dashboards.ts`;
  const text = values.map((value) =>
    `export const _: Plain<Dashboard> = ${JSON.stringify(value)};\n`
  )
    .map((line, index) => line.replace("_", `dashboard${index}`));
  Deno.writeTextFileSync(path, TYPES + text.join(""));
  const config = new URL("../deno.json", import.meta.url).pathname;
  const { code, stdout, stderr } = await runProgram(Deno.execPath(), {
    args: ["check", "--quiet", "--config", config, path],
    env: { NO_COLOR: "1" },
  });
  return code === 0 ? "" : stdout + stderr;
}

Deno.test("the dashboards conform to the types of Grafana's schema", async () => {
  assert.equal(await checkDashboards(dashboards), "");
  const [first] = dashboards;
  const broken = { ...first, panels: [{ ...first.panels[0], gridPos: { x: "left" } }] };
  assert.match(await checkDashboards([broken]), /TS2322/);
});

Deno.test("the Compose file for monitoring mounts existing files, and names its secrets", () => {
  const { services, secrets } = parse(readDeployed("compose/monitoring.yml"));
  const mounts = Object.values(services).flatMap(({ volumes = [] }: Document) => volumes)
    .map((volume: string) => volume.split(":")[0] ?? "").filter((path) => path.startsWith("."));
  assert.ok(mounts.length >= 4);
  for (const path of mounts) assert.ok(Deno.statSync(new URL(`compose/${path}`, DEPLOY)), path);
  const named = [
    ...Object.keys(secrets),
    ...Object.keys(parse(readDeployed("compose/docker-compose.yml")).secrets),
  ];
  for (const { secrets: used = [] } of Object.values(services) as Document[]) {
    for (const name of used) assert.ok(named.includes(name), name);
  }
  const [readings] = sources;
  const file = /^\$__file\{\/run\/secrets\/(\w+)\}$/.exec(readings.secureJsonData.password)?.[1];
  assert.ok(services.grafana.secrets.includes(file));
  assert.match(
    readDeployed("compose/database/create_grafana_role.sql"),
    new RegExp(`ALTER ROLE ${readings.user} LOGIN `),
  );
});

/** The results of all panels of readings. */
async function askPanels(role: SqlTarget, ids: readonly number[]): Promise<SqlRow[][]> {
  const questions = targets.filter(({ rawSql }) => rawSql !== undefined);
  assert.equal(questions.length, 2);
  const answers = [];
  for (const { rawSql } of questions) answers.push(await runSql(role, expand(rawSql, ids)));
  return answers;
}

/** The sensors that the variable of the dashboard offers, by name. */
async function askSensors(role: SqlTarget): Promise<Map<string, number>> {
  const { list: [variable] } = dashboards[0].templating;
  const choices = await runSql(role, variable.query);
  return new Map(choices.map(({ __text, __value }) => [String(__text), Number(__value)]));
}

/** Two readings a minute apart for each sensor: its number, and that number plus one. */
async function insertReadings(database: TestDatabase): Promise<void> {
  await database.query(
    `INSERT INTO sensor_data SELECT now() - interval '1 min' * step, id, id + 1 - step
     FROM sensors, generate_series(0, 1) AS step`,
  );
}

Deno.test("the queries for readings work with Grafana's role, which can only read", async () => {
  const database = await postgres.createDatabase();
  const [first, second, third] = SENSORS;
  assert.ok(first && second && third);
  await database.registerSensors([
    { ...first, label: "Oven" },
    { ...second, label: "Chamber" },
    { ...third, label: "Chamber" },
  ]);
  await insertReadings(database);
  const role = await createGrafanaRole(database);
  const sensors = await askSensors(role);
  assert.equal(sensors.size, SENSORS.length);
  const id = sensors.get("Oven");
  assert.ok(id);
  const [readings = [], last = []] = await askPanels(role, [...sensors.values()]);
  assert.equal(readings.length, 2 * SENSORS.length);
  assert.equal(last.length, SENSORS.length);
  assert.deepEqual(
    readings.filter(({ metric }) => metric === "Oven").map(({ value }) => value),
    [id, id + 1],
  );
  assert.equal(last.find(({ sensor }) => sensor === "Oven")?.["value"], id + 1);
  // Two sensors with the same label are two lines, not one line with their mean.
  const names = readings.map(({ metric }) => String(metric));
  assert.equal(new Set(names).size, SENSORS.length);
  assert.ok(names.includes(`Chamber ${second.uuid} ${second.sid}`));
  assert.deepEqual(new Set(names), new Set(sensors.keys()));
  await assert.rejects(runSql(role, "DELETE FROM sensor_data"), { code: "42501" });
});

Deno.test("the queries for readings work without any sensor, and without a column for labels", async () => {
  const database = await postgres.createDatabase();
  const role = await createGrafanaRole(database);
  assert.deepEqual(await askPanels(role, []), [[], []]);
  await database.query("ALTER TABLE sensors DROP COLUMN label");
  await insertReadings(database);
  const sensors = await askSensors(role);
  const [sensor] = SENSORS;
  assert.ok(sensors.has(`${sensor?.uuid} ${sensor?.sid}`));
  const [readings = [], last = []] = await askPanels(role, [...sensors.values()]);
  assert.equal(readings.length, 2 * SENSORS.length);
  assert.equal(last.length, SENSORS.length);
  assert.deepEqual(new Set(last.map(({ sensor }) => sensor)), new Set(sensors.keys()));
});

Deno.test("slow sensors have lines, too, and no rate has the unit of requests", () => {
  const panels = dashboards.flatMap(({ panels }) => panels);
  const find = (name: string): Document => {
    const panel = panels.find(({ title }: Document) => title === name);
    return panel?.fieldConfig.defaults ?? assert.fail(name);
  };
  // All sensors share one table of results, in which slower sensors have gaps.
  assert.ok(find("Readings").custom.spanNulls > 60_000);
  assert.equal(find("Messages per second").unit, "short");
});
