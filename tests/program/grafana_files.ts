/** What Grafana is provisioned with, and what it would make of it: macros, and the states of rules. */
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
/** The questions of all panels. */
export const targets: readonly Document[] = dashboards.flatMap(({ panels }) =>
  panels.flatMap(({ targets }: Document) => targets)
);

/**
 * Makes Grafana's role as the script does, by SQL alone where there is no `psql`; the role can
 * connect to this database then.
 */
export async function createGrafanaRole(database: TestDatabase): Promise<SqlTarget> {
  const script = readDeployed("compose/database/create_grafana_role.sql")
    .replaceAll(/^(\\set|--).*\n/gm, "").replaceAll(":'password'", "'grafana'");
  for (const part of script.split(/(?<=;|\\gexec)\n/)) {
    // `\gexec` runs what the statement answers.
    if (!part.endsWith("\\gexec")) await database.query(part);
    else {
      for (const row of await database.query(part.replace("\\gexec", ""))) {
        for (const statement of Object.values(row)) await database.query(String(statement));
      }
    }
  }
  // The databases of the tests let nobody in who is not named.
  await database.query(`GRANT CONNECT ON DATABASE "${database.name}" TO grafana`);
  await database.query("GRANT USAGE ON SCHEMA public TO grafana");
  return { ...database.logger, user: "grafana", password: "grafana" };
}

/** Grafana's macros for PostgreSQL and the variable of the dashboard, as its manual has them. */
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

/** One number with the labels that tell it from the others. */
export interface LabelledNumber {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/**
 * What Grafana makes of a table: of its one column of numbers the values, of the others labels,
 * which must be texts.
 */
export function toNumbers(rows: readonly SqlRow[]): LabelledNumber[] {
  return rows.map((row) => {
    const numbers = Object.values(row).filter((value) => typeof value === "number");
    const texts = Object.entries(row).filter(([, value]) => typeof value === "string");
    assert.equal(numbers.length, 1, JSON.stringify(row));
    assert.equal(texts.length, Object.keys(row).length - 1, JSON.stringify(row));
    return { labels: Object.fromEntries(texts) as Record<string, string>, value: numbers[0] ?? 0 };
  });
}

/** Answers the question of a rule, or fails. */
export type Ask = (query: Document) => Promise<LabelledNumber[]>;

/** Answers from the table. */
export function askTable(role: SqlTarget): Ask {
  return async ({ model }) => toNumbers(await runSql(role, model.rawSql));
}

/** What a rule says at a moment: of which labels it fires. Without data there are no labels. */
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
  // Two of the same labels would be an error.
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
