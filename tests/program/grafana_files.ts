/** The files that Grafana is provisioned with, and its macros and rule states. */
import assert from "node:assert/strict";
import { parse } from "yaml";
import type { TestDatabase } from "../support/postgres_database.ts";
import { runSql, type SqlRow, type SqlTarget } from "../support/sql.ts";

// deno-lint-ignore no-explicit-any
export type Document = any;

export const DEPLOY = new URL("../../deploy/", import.meta.url);

export function readDeployed(path: string): string {
  return Deno.readTextFileSync(new URL(path, DEPLOY));
}

export const dashboards: readonly Document[] = ["readings", "logger"].map((name) =>
  JSON.parse(readDeployed(`grafana/dashboards/${name}.json`))
);
export const sources: readonly Document[] =
  parse(readDeployed("grafana/provisioning/datasources/kraken.yml")).datasources;
export const rules: readonly Document[] =
  parse(readDeployed("grafana/provisioning/alerting/kraken.yml")).groups[0].rules;
/** The queries of all panels. */
export const targets: readonly Document[] = dashboards.flatMap(({ panels }) =>
  panels.flatMap(({ targets }: Document) => targets)
);

/**
 * Creates Grafana's role as the script does, by SQL alone if `psql` is not installed, and lets the
 * role connect to this database.
 */
export async function createGrafanaRole(database: TestDatabase): Promise<SqlTarget> {
  const script = readDeployed("compose/database/create_grafana_role.sql")
    .replaceAll(/^(\\set|--).*\n/gm, "").replaceAll(":'password'", "'grafana'");
  for (const part of script.split(/(?<=;|\\gexec)\n/)) {
    // `\gexec` runs the result of the statement.
    if (!part.endsWith("\\gexec")) await database.query(part);
    else {
      for (const row of await database.query(part.replace("\\gexec", ""))) {
        for (const statement of Object.values(row)) await database.query(String(statement));
      }
    }
  }
  // In the databases of the tests, each role needs the privilege to connect.
  await database.query(`GRANT CONNECT ON DATABASE "${database.name}" TO grafana`);
  await database.query("GRANT USAGE ON SCHEMA public TO grafana");
  return { ...database.logger, user: "grafana", password: "grafana" };
}

/** Grafana's macros for PostgreSQL and the variable of the dashboard, as in its manual. */
export function expand(sql: string, sensors: readonly number[]): string {
  return sql
    .replaceAll(
      /\$__timeGroupAlias\((\w+), \$__interval\)/g,
      'floor(extract(epoch from $1)/60)*60 AS "time"',
    )
    .replaceAll(
      /\$__timeFilter\((\w+)\)/g,
      "$1 BETWEEN '2023-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z'",
    )
    .replaceAll("${sensor:csv}", sensors.join(","));
}

/** A number with the labels that distinguish it from the others. */
export interface LabeledNumber {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/**
 * Converts a table as Grafana does: its one column of numbers to values, the others to labels, which
 * must be texts.
 */
function toNumbers(rows: readonly SqlRow[]): LabeledNumber[] {
  return rows.map((row) => {
    const numbers = Object.values(row).filter((value) => typeof value === "number");
    const texts = Object.entries(row).filter(([, value]) => typeof value === "string");
    assert.equal(numbers.length, 1, JSON.stringify(row));
    assert.equal(texts.length, Object.keys(row).length - 1, JSON.stringify(row));
    return { labels: Object.fromEntries(texts) as Record<string, string>, value: numbers[0] ?? 0 };
  });
}

/** Runs the query of a rule; throws if it fails. */
export type Ask = (query: Document) => Promise<LabeledNumber[]>;

/** Runs queries on the table. */
export function askTable(role: SqlTarget): Ask {
  return async ({ model }) => toNumbers(await runSql(role, model.rawSql));
}

/** The labels for which a rule fires now; without data there are none. */
export async function findFiring(
  { data: [query, threshold], noDataState, execErrState }: Document,
  ask: Ask,
): Promise<Readonly<Record<string, string>>[]> {
  const ofState: Record<string, Record<string, string>[]> = { OK: [], Alerting: [{}], Error: [{}] };
  let numbers;
  try {
    numbers = await ask(query);
  } catch (error) {
    if (error instanceof assert.AssertionError) throw error;
    return ofState[execErrState] ?? assert.fail(execErrState);
  }
  if (numbers.length === 0) return ofState[noDataState] ?? assert.fail(noDataState);
  // Two numbers with the same labels would be an error in Grafana.
  const names = numbers.map(({ labels }) => JSON.stringify(Object.entries(labels).sort()));
  assert.equal(new Set(names).size, names.length, names.join("\n"));
  const [{ evaluator: { type, params: [limit] } }] = threshold.model.conditions;
  const isBad: Readonly<Record<string, (value: number) => boolean>> = {
    gt: (value) => value > limit,
    lt: (value) => value < limit,
  };
  return numbers.filter(({ value }) => (isBad[type] ?? assert.fail(type))(value))
    .map(({ labels }) => labels);
}
