/** Reading what can be read of a damaged spool file. */

import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";

/** Rows read at once. */
const CHUNK = 500;

/** Where rows cannot be read, the steps grow slowly for so many attempts, and then double. */
const MAX_SMALL_STEPS = 1_000;

export interface RescueOptions<Table extends string> {
  /** An empty database with the same schema. */
  readonly into: DatabaseSync;
  /** Creates the tables, in the same order as in the damaged file. */
  readonly schema: string;
  /** The columns of each table, the first of which is its integer key. */
  readonly tables: Readonly<Record<Table, readonly string[]>>;
}

/** Copies all readable rows of the file at `path`; returns how many, by table. */
export function rescueRows<Table extends string>(
  path: string,
  options: RescueOptions<Table>,
): Record<Table, number> {
  const rescued = copyRowsOf(path, options);
  if (Object.values(rescued).some((count) => count !== 0)) return rescued;
  // Perhaps only the beginning is damaged, which says where the tables are.
  const copy = `${path}.copy`;
  try {
    Deno.copyFileSync(path, copy);
    writeFirstPage(copy, options.schema);
    return copyRowsOf(copy, options);
  } catch {
    return rescued; // No room for a copy: the file itself is kept for whoever wants to try more.
  } finally {
    for (const file of [copy, `${copy}-journal`]) removeIfThere(file);
  }
}

function copyRowsOf<Table extends string>(
  path: string,
  options: RescueOptions<Table>,
): Record<Table, number> {
  let from: DatabaseSync | undefined;
  try {
    from = new DatabaseSync(path);
  } catch {
    // Not even that: nothing can be read.
  }
  const rescued = copyRows(from, options);
  from?.close();
  return rescued;
}

/** Copies all readable rows of an open database, if there is one; returns how many, by table. */
export function copyRows<Table extends string>(
  from: DatabaseSync | undefined,
  { into, tables }: Omit<RescueOptions<Table>, "schema">,
): Record<Table, number> {
  const counts: [string, number][] = [];
  for (const [table, columns] of Object.entries<readonly string[]>(tables)) {
    const places = columns.map(() => "?").join(", ");
    const insert = into.prepare(`INSERT OR IGNORE INTO ${table} VALUES (${places})`);
    let count = 0;
    into.exec("BEGIN");
    for (const row of from === undefined ? [] : readableRows(from, { table, columns })) {
      count += tryInsert(insert, columns.map((column) => row[column] as SQLInputValue));
    }
    into.exec("COMMIT");
    counts.push([table, count]);
  }
  return Object.fromEntries(counts) as Record<Table, number>;
}

/** Returns how many rows were inserted: none where the damage is in the row itself. */
function tryInsert(insert: StatementSync, values: readonly SQLInputValue[]): number {
  try {
    return Number(insert.run(...values).changes);
  } catch (error) {
    // Too little room is no reason to leave rows out.
    if (!/constraint|cannot store/.test(String(error))) throw error;
    return 0;
  }
}

/** The rows in the order of their key, past those that cannot be read. */
function* readableRows(
  database: DatabaseSync,
  { table, columns }: { readonly table: string; readonly columns: readonly string[] },
): Generator<Record<string, unknown>> {
  const [key = "id"] = columns;
  let select: StatementSync;
  try {
    select = database.prepare(
      `SELECT ${columns.join(", ")} FROM ${table} WHERE ${key} >= ? ORDER BY ${key} LIMIT ?`,
    );
  } catch {
    return; // It is not known where the table is.
  }
  const read = (from: number, limit: number): Record<string, unknown>[] | undefined => {
    try {
      return select.all(from, limit);
    } catch {
      return undefined; // Damaged there.
    }
  };
  let from = 0;
  let failed = 0;
  let failures = 0;
  while (from < Number.MAX_SAFE_INTEGER) {
    if (read(from, 1) === undefined) {
      failed = from;
      from += 1 + (failures >> 3) + 2 ** Math.max(0, failures - MAX_SMALL_STEPS);
      failures++;
      continue;
    }
    // Back to the first row behind the damage.
    for (let low = failed; from - low > 1;) {
      const middle = Math.floor((low + from) / 2);
      if (read(middle, 1) === undefined) low = middle;
      else from = middle;
    }
    failures = 0;
    failed = from;
    const rows = read(from, CHUNK);
    const found = rows ?? read(from, 1) ?? [];
    yield* found;
    if (found.length < (rows === undefined ? 1 : CHUNK)) return;
    // One key may be damaged: the middle one of the last three is not likely to lead astray.
    const keys = found.slice(-3).map((row) => Number(row[key])).sort((one, other) => one - other);
    from = failed = Math.max(from + 1, (keys[keys.length >> 1] as number) + 1);
  }
}

/** Replaces the first page of a database by that of an empty one with the same tables. */
function writeFirstPage(path: string, schema: string): void {
  const model = `${path}.model`;
  try {
    const database = new DatabaseSync(model);
    database.exec("PRAGMA auto_vacuum = INCREMENTAL");
    database.exec(schema);
    const pageSize = Number(database.prepare("PRAGMA page_size").get()?.["page_size"]);
    database.close();
    const firstPage = Deno.readFileSync(model).subarray(0, pageSize);
    // Pages in use and pages free: 0 makes SQLite go by the size of the file, and look for none.
    firstPage.fill(0, 28, 40);
    using file = Deno.openSync(path, { write: true });
    file.writeSync(firstPage);
  } finally {
    removeIfThere(model);
  }
}

/** Deletes a file. That there is none is no error. */
export function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
