/** Copies all readable rows of a damaged spool file into a new one. */

import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";

/** Rows per query. */
const CHUNK = 500;

/** In an unreadable range, the steps grow slowly for this many attempts, and then double. */
const MAX_SMALL_STEPS = 1_000;

/** Where to copy the rows to, and which tables to copy. */
export interface RescueOptions<Table extends string> {
  /** An empty database with the same schema. The caller closes it. */
  readonly into: DatabaseSync;
  /** Creates the tables, in the same order as in the damaged file. */
  readonly schema: string;
  /** The columns of each table, the first of which is its integer key. */
  readonly tables: Readonly<Record<Table, readonly string[]>>;
}

/**
 * Copies all readable rows of the file at `path`, which is not changed. Returns the number of
 * copied rows by table; 0 for a table that cannot be read.
 *
 * @throws {Error} when a row cannot be inserted, for example because the disk is full.
 */
export function rescueRows<Table extends string>(
  path: string,
  options: RescueOptions<Table>,
): Record<Table, number> {
  const rescued = copyRowsOf(path, options);
  if (Object.values(rescued).some((count) => count !== 0)) return rescued;
  // Perhaps only the first page is damaged, which contains the locations of the tables.
  const copy = `${path}.copy`;
  try {
    Deno.copyFileSync(path, copy);
    writeFirstPage(copy, options.schema);
    return copyRowsOf(copy, options);
  } catch {
    return rescued; // No space for the copy. The caller keeps the damaged file for the operator.
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
    // The file cannot be opened: no row can be read.
  }
  const rescued = copyRows(from, options);
  from?.close();
  return rescued;
}

/**
 * Copies all readable rows of an open database, or none if `from` is undefined. Returns the number
 * of copied rows by table.
 *
 * @throws {Error} when a row cannot be inserted, for example because the disk is full.
 */
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

/** Returns the number of inserted rows: 0 if the row is damaged. */
function tryInsert(insert: StatementSync, values: readonly SQLInputValue[]): number {
  try {
    return Number(insert.run(...values).changes);
  } catch (error) {
    // Only a damaged row may be skipped. On a full disk, the rescue must fail.
    if (!/constraint|cannot store/.test(String(error))) throw error;
    return 0;
  }
}

/** Yields the rows in the order of their key, and skips unreadable ones. */
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
    return; // The schema is damaged: SQLite does not know the table.
  }
  const read = (from: number, limit: number): Record<string, unknown>[] | undefined => {
    try {
      return select.all(from, limit);
    } catch {
      return undefined; // This part of the file is damaged.
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
    // The row at `from` is readable: find the first readable row after `failed` by bisection.
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
    // A damaged key could skip many rows. The median of the last three keys tolerates one.
    const keys = found.slice(-3).map((row) => Number(row[key])).sort((one, other) => one - other);
    from = failed = Math.max(from + 1, (keys[keys.length >> 1] as number) + 1);
  }
}

/** Overwrites the first page of a database with that of an empty one with the same tables. */
function writeFirstPage(path: string, schema: string): void {
  const model = `${path}.model`;
  try {
    const database = new DatabaseSync(model);
    database.exec("PRAGMA auto_vacuum = INCREMENTAL");
    database.exec(schema);
    const pageSize = Number(database.prepare("PRAGMA page_size").get()?.["page_size"]);
    database.close();
    const firstPage = Deno.readFileSync(model).subarray(0, pageSize);
    // With 0 here, SQLite takes the number of pages from the size of the file, and finds no free
    // pages.
    firstPage.fill(0, 28, 40);
    using file = Deno.openSync(path, { write: true });
    file.writeSync(firstPage);
  } finally {
    removeIfThere(model);
  }
}

/** Deletes a file if it exists. */
export function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
