/** Rescuing a damaged spool file: readable rows are copied unchanged, and the rescue terminates. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import { rescueRows } from "../../../lib/spool/rescue.ts";
import {
  damagePages,
  PAGE_BYTES,
  pagesWith,
  replaceInFile,
  TemporarySpool,
} from "../../support/temporary_spool.ts";

const SCHEMA = `
CREATE TABLE message (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL) STRICT;
CREATE TABLE sensor (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE) STRICT;`;

const TABLES = { message: ["id", "topic", "payload"], sensor: ["id", "uuid"] } as const;

/** A file with messages `w1w`, `w2w`, … and three sensors, and a database to rescue it into. */
class Patient implements Disposable {
  readonly #temporary = new TemporarySpool();
  readonly path = this.#temporary.path;
  readonly into = new DatabaseSync(":memory:");

  constructor({ count = 1_000, bytes = 100 } = {}) {
    using database = new DatabaseSync(this.path);
    database.exec("PRAGMA auto_vacuum = INCREMENTAL");
    database.exec(SCHEMA);
    database.exec("INSERT INTO sensor (uuid) VALUES ('a'), ('b'), ('c')");
    const insert = database.prepare("INSERT INTO message VALUES (?, ?, ?)");
    database.exec("BEGIN");
    for (let id = 1; id <= count; id++) insert.run(id, `w${id}w`, new Uint8Array(bytes).fill(id));
    database.exec("COMMIT");
    this.into.exec(SCHEMA);
  }

  /** Returns the ids of the rescued messages, after checking that their content is unchanged. */
  rescue(): { ids: number[]; counts: Record<"message" | "sensor", number> } {
    const counts = rescueRows(this.path, { into: this.into, schema: SCHEMA, tables: TABLES });
    const rows = this.into.prepare("SELECT * FROM message ORDER BY id").all();
    assert.equal(counts.message, rows.length);
    const ids = rows.map((row) => Number(row["id"]));
    for (const row of rows) {
      const { id, topic, payload } = row as { id: number; topic: string; payload: Uint8Array };
      assert.equal(topic, `w${id}w`);
      assert.ok(payload.every((byte) => byte === id % 256));
    }
    return { ids, counts };
  }

  [Symbol.dispose](): void {
    this.into.close();
    this.#temporary[Symbol.dispose]();
  }
}

Deno.test("an undamaged file is rescued completely", () => {
  using patient = new Patient();
  assert.deepEqual(patient.rescue().counts, { message: 1_000, sensor: 3 });
});

Deno.test("a damaged page loses its own rows and few others", () => {
  for (const bytes of [0, 100, 1_000, 3_000]) {
    using patient = new Patient({ bytes });
    const [page = 0] = pagesWith(patient.path, "w500w");
    const content = Buffer.from(Deno.readFileSync(patient.path))
      .subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    const onPage: string[] = content.toString("latin1").match(/w\d+w/g) ?? [];
    damagePages(patient.path, [page]);
    const { ids, counts } = patient.rescue();
    const lost = Array.from({ length: 1_000 }, (_, index) => index + 1)
      .filter((id) => !ids.includes(id)).map((id) => `w${id}w`);
    assert.equal(counts.sensor, 3);
    assert.deepEqual(onPage.filter((topic) => !lost.includes(topic)), []);
    assert.deepEqual(lost.filter((topic) => !onPage.includes(topic)), [], `${bytes} bytes a row`);
  }
});

Deno.test("rows after a long damaged range are found", () => {
  using patient = new Patient({ count: 20_000, bytes: 20 });
  const [first = 0] = pagesWith(patient.path, "w5000w");
  const [last = 0] = pagesWith(patient.path, "w8000w");
  damagePages(patient.path, Array.from({ length: last - first + 1 }, (_, index) => first + index));
  const { ids } = patient.rescue();
  assert.ok(ids.includes(1) && ids.includes(4_800));
  assert.ok(ids.filter((id) => id > 8_200).length === 11_800, `${ids.length} rows`);
});

Deno.test("a file without its first page is read with the first page of a new file", () => {
  using patient = new Patient();
  damagePages(patient.path, [0]);
  const before = Deno.readFileSync(patient.path);
  assert.deepEqual(patient.rescue().counts, { message: 1_000, sensor: 3 });
  assert.deepEqual(Deno.readFileSync(patient.path), before);
  const directory = patient.path.slice(0, patient.path.lastIndexOf("/"));
  assert.deepEqual([...Deno.readDirSync(directory)].map(({ name }) => name), ["spool.sqlite"]);
});

Deno.test("a truncated file is read up to its end", () => {
  using patient = new Patient();
  Deno.truncateSync(patient.path, Deno.statSync(patient.path).size / 2);
  const { ids } = patient.rescue();
  assert.ok(ids.length > 400 && ids.length < 600, `${ids.length} rows`);
});

Deno.test("nothing is found in a file that is not a database", () => {
  for (const text of ["", "no database", "x".repeat(100_000)]) {
    using patient = new Patient();
    Deno.writeTextFileSync(patient.path, text);
    assert.deepEqual(patient.rescue().counts, { message: 0, sensor: 0 });
  }
});

Deno.test("an existing row is not overwritten", () => {
  using patient = new Patient({ count: 5 });
  patient.into.exec("INSERT INTO message VALUES (3, 'w3w', x'030303')");
  const counts = rescueRows(patient.path, { into: patient.into, schema: SCHEMA, tables: TABLES });
  assert.deepEqual(counts, { message: 4, sensor: 3 });
});

Deno.test("only the row that violates its table is skipped", () => {
  using patient = new Patient({ count: 10, bytes: 1 });
  {
    using database = new DatabaseSync(patient.path);
    // Not STRICT, so that it can hold what a damaged row may contain.
    database.exec(`
      DROP TABLE message;
      CREATE TABLE message (id INTEGER PRIMARY KEY, topic, payload);
      INSERT INTO message VALUES (1, 'w1w', x'01'), (2, NULL, x'02'), (3, 'w3w', NULL),
                                 (4, 'w4w', 'text'), (5, 'w5w', x'05');`);
  }
  assert.deepEqual(patient.rescue().ids, [1, 5]);
});

/** Columns that throw after too many queries, so that an endless loop fails the test. */
function readSeldom(columns: readonly string[], maxRows: number): string[] {
  let rows = 0;
  return Object.assign([...columns], {
    map: <T>(callback: (column: string) => T): T[] => {
      assert.ok(rows++ <= maxRows, "it reads the same rows again and again");
      return Array.from(columns, callback);
    },
  });
}

Deno.test("ids out of order cause no endless loop and hide no later rows", () => {
  for (const count of [100, 499, 500, 501, 1_000]) {
    for (const id of [0, 1, 200, 60_000_000]) {
      using patient = new Patient({ count, bytes: 10 });
      setId(patient.path, { topic: `w${Math.min(count, 500)}w`, id });
      const tables = { ...TABLES, message: readSeldom(TABLES.message, 10_000) };
      const options = { into: patient.into, schema: SCHEMA, tables };
      const { message } = rescueRows(patient.path, options);
      assert.ok(message >= count - 1, `${message} of ${count} rows, id ${id}`);
    }
  }
});

/** Changes the id of a row like a flipped bit, which no checksum detects. */
function setId(path: string, { topic, id }: { topic: string; id: number }): void {
  const bytes = Buffer.from(Deno.readFileSync(path));
  // A row: its length, its id with seven bits per byte, the header length, and the types.
  const at = bytes.indexOf(topic) - 4;
  assert.equal(bytes[at], 4, "the header is where the format has it");
  let length = 1;
  while ((bytes[at - length - 1] as number) >= 0x80) length++;
  for (let place = 0; place < length; place++) {
    const low = Math.floor(id / 128 ** place) % 128;
    bytes[at - 1 - place] = place === 0 ? low : low | 0x80;
  }
  Deno.writeFileSync(path, bytes);
}

Deno.test("the rescue terminates for any damage, and rescued rows are unchanged", () => {
  const damages = fc.array(fc.nat({ max: 60 }), { minLength: 1, maxLength: 10 });
  fc.assert(
    fc.property(damages, (pages) => {
      using patient = new Patient({ count: 500, bytes: 300 });
      const last = Deno.statSync(patient.path).size / PAGE_BYTES - 1;
      damagePages(patient.path, pages.map((page) => Math.min(page, last)));
      const { ids } = patient.rescue();
      assert.equal(new Set(ids).size, ids.length);
    }),
    { numRuns: 8 },
  );
});

Deno.test("damage to the schema page does not hide the tables", () => {
  using patient = new Patient();
  replaceInFile(patient.path, { from: "CREATE TABLE message", to: "CRXATE TABLE message" });
  assert.deepEqual(patient.rescue().counts, { message: 1_000, sensor: 3 });
});
