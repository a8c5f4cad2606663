/** The spool file: its lock, its transactions, its size limit, and the replacement of a damaged file. */
import assert from "node:assert/strict";
import type { SpoolConfig } from "../../../lib/config/config.ts";
import { DEFAULT_TUNING } from "../../../lib/config/tuning.ts";
import { Spool } from "../../../lib/spool/spool.ts";
import { SpoolError } from "../../../lib/spool/errors.ts";
import { SpoolFile } from "../../../lib/spool/file.ts";
import { captureLog, withoutTime } from "../../support/captured_log.ts";
import { withTemporaryDirectory } from "../../support/temporary_directory.ts";
import {
  damagePages,
  damageUnder,
  MEBIBYTE,
  message,
  messages,
  pagesWith,
  replaceInFile,
  TemporarySpool,
} from "../../support/temporary_spool.ts";

const INSERT = "INSERT INTO message (id, time_ms, topic, payload) VALUES (?, 0, ?, ?)";

function insert(spoolFile: SpoolFile, id: number, bytes = 0): void {
  spoolFile.run(INSERT, id, String(id), new Uint8Array(bytes));
}

function ids(spoolFile: SpoolFile): unknown[] {
  return spoolFile.all("SELECT id FROM message ORDER BY id").map(({ id }) => id);
}

function createConfig(directory: string): SpoolConfig {
  return { directory, maxBytes: MEBIBYTE, tuning: DEFAULT_TUNING };
}

Deno.test("open creates a missing directory", () => {
  using directory = withTemporaryDirectory();
  const config = createConfig(`${directory.path}/var/lib/kraken`);
  using spoolFile = SpoolFile.open(config);
  assert.deepEqual(ids(spoolFile), []);
  assert.ok(Deno.statSync(SpoolFile.path(config)).isFile);
});

Deno.test("open reports the system's reason if it cannot create the directory", () => {
  using directory = withTemporaryDirectory();
  Deno.writeTextFileSync(`${directory.path}/file`, "");
  const config = createConfig(`${directory.path}/file/spool`);
  assert.throws(
    () => SpoolFile.open(config),
    /^SpoolError: cannot create the directory: Not a directory$/,
  );
});

Deno.test("SQLite is configured to survive a power failure", () => {
  using temporary = new TemporarySpool();
  const spoolFile = temporary.open();
  const pragma = (name: string): unknown =>
    Object.values(spoolFile.all(`PRAGMA ${name}`)[0] ?? {})[0];
  assert.deepEqual([pragma("synchronous"), pragma("journal_mode")], [2, "persist"]);
});

Deno.test("a second logger is refused until the first one has ended", () => {
  using temporary = new TemporarySpool();
  const spoolFile = temporary.open();
  insert(spoolFile, 1);
  assert.throws(() => SpoolFile.open(temporary.config), (error) => {
    assert.ok(error instanceof SpoolError);
    assert.match(error.message, /^another logger is using it/);
    return true;
  });
  insert(spoolFile, 2);
  assert.deepEqual(ids(spoolFile), [1, 2]);
  temporary.close();
  using next = SpoolFile.open(temporary.config);
  assert.deepEqual(ids(next), [1, 2]);
});

Deno.test("a failed open releases the lock on the directory", () => {
  using temporary = new TemporarySpool();
  Deno.mkdirSync(temporary.path);
  assert.throws(() => temporary.open(), SpoolError);
  Deno.removeSync(temporary.path);
  assert.deepEqual(ids(temporary.open()), []);
});

Deno.test("attach opens an existing file beside a running logger", () => {
  using temporary = new TemporarySpool();
  assert.throws(
    () => SpoolFile.attach(temporary.config),
    /^SpoolError: there is no '.*sqlite'; the logger creates it /,
  );
  assert.deepEqual([...Deno.readDirSync(temporary.config.directory)], []);
  const spoolFile = temporary.open();
  insert(spoolFile, 1);
  {
    using beside = SpoolFile.attach(temporary.config);
    insert(spoolFile, 2);
    assert.deepEqual(ids(beside), [1, 2]);
    beside.run("DELETE FROM message WHERE id = 1");
  }
  assert.deepEqual(ids(spoolFile), [2]);
  temporary.close();
  using alone = SpoolFile.attach(temporary.config);
  assert.deepEqual(ids(alone), [2]);
});

Deno.test("a failed transaction changes nothing", () => {
  using temporary = new TemporarySpool();
  const spoolFile = temporary.open();
  insert(spoolFile, 1);
  const failures: [() => void, RegExp][] = [
    [() => insert(spoolFile, 1), /UNIQUE/],
    [() => spoolFile.run("INSERT INTO nowhere VALUES (1)"), /no such table/],
    [() => insert(spoolFile, 3, 2 * 64 * MEBIBYTE), /full/],
  ];
  for (const [fail, words] of failures) {
    assert.throws(() =>
      spoolFile.transaction(() => {
        insert(spoolFile, 2);
        fail();
      }), (error) => {
      assert.ok(error instanceof SpoolError);
      assert.match(error.message, words);
      return true;
    });
    assert.deepEqual(ids(spoolFile), [1]);
  }
  spoolFile.transaction(() => {
    insert(spoolFile, 2);
    insert(spoolFile, 3);
  });
  assert.deepEqual(temporary.topics(), ["1", "2", "3"]);
});

Deno.test("the file stays within its limit, and deletions free space", () => {
  using temporary = new TemporarySpool({ maxBytes: MEBIBYTE });
  const spoolFile = temporary.open();
  const emptyBytes = Deno.statSync(temporary.path).size;
  let id = 0;
  assert.throws(() => {
    while (true) insert(spoolFile, ++id, 10_000);
  }, /^SpoolError: database or disk is full$/);
  const { usedBytes } = spoolFile;
  assert.ok(id * 10_000 > 0.4 * MEBIBYTE, `${id} rows`);
  assert.ok(Deno.statSync(temporary.path).size <= MEBIBYTE);
  assert.ok(usedBytes > id * 10_000 && usedBytes <= MEBIBYTE);
  assert.equal(spoolFile.run("DELETE FROM message WHERE id <= 20"), 20);
  assert.ok(spoolFile.usedBytes < usedBytes - 20 * 10_000);
  insert(spoolFile, id, 10_000);
  spoolFile.run("DELETE FROM message");
  spoolFile.shrink();
  assert.equal(Deno.statSync(temporary.path).size, emptyBytes);
});

Deno.test("a lower limit keeps the messages in the file", () => {
  using temporary = new TemporarySpool();
  const spoolFile = temporary.open();
  for (let id = 1; id <= 300; id++) insert(spoolFile, id, 10_000);
  const lower = temporary.open({ maxBytes: MEBIBYTE });
  assert.equal(ids(lower).length, 300);
  assert.throws(() => insert(lower, 1_000, 100_000), SpoolError);
  lower.run("DELETE FROM message WHERE id > 1");
  insert(lower, 1_000, 100_000);
});

/** Writes a file with messages whose topics are easy to find in its bytes, and closes it. */
function fill(temporary: TemporarySpool, { count = 2_000, bytes = 100 } = {}): void {
  const spool = new Spool(temporary.open());
  spool.append(Array.from({ length: count }, (_, index) => message(`w${index}w`, { bytes })));
  temporary.close();
}

Deno.test("a damaged file is kept, logged, and replaced by one with its readable rows", () => {
  const lines = captureLog();
  using temporary = new TemporarySpool();
  fill(temporary);
  damagePages(temporary.path, pagesWith(temporary.path, "w1000w"));
  const spoolFile = temporary.open();
  const { length } = ids(spoolFile);
  assert.ok(length < 2_000 && length > 1_900, `${length} messages are left`);
  const [aside, ...more] = temporary.damagedFiles();
  assert.deepEqual(more, []);
  assert.equal(lines.length, 1);
  const [line = ""] = lines.map(withoutTime);
  assert.ok(line.startsWith(`ERROR    The spool '${temporary.path}' is damaged (`), line);
  assert.ok(
    line.includes(
      `The damaged file is kept as '${temporary.config.directory}/${aside}'. Recovered ${length} `,
    ),
    line,
  );
  temporary.open();
  assert.equal(lines.length, 1);
});

Deno.test("all messages are recovered if only the first page is damaged", () => {
  captureLog();
  const damages: ((path: string) => void)[] = [
    (path) => damagePages(path, [0]),
    (path) => replaceInFile(path, { from: "SQLite format 3", to: "SQLite format ?" }),
    (path) => replaceInFile(path, { from: "CREATE TABLE message", to: "CREATE TABLX message" }),
  ];
  for (const damage of damages) {
    using temporary = new TemporarySpool();
    fill(temporary);
    damage(temporary.path);
    assert.equal(ids(temporary.open()).length, 2_000, String(damage));
    assert.equal(temporary.damagedFiles().length, 1);
  }
});

Deno.test("an unreadable file is kept and replaced by an empty one", () => {
  const lines = captureLog();
  using temporary = new TemporarySpool();
  Deno.writeTextFileSync(temporary.path, "This is no database. ".repeat(1_000));
  const spoolFile = temporary.open();
  assert.deepEqual(ids(spoolFile), []);
  insert(spoolFile, 1);
  assert.equal(temporary.damagedFiles().length, 1);
  assert.match(lines[0] ?? "", / Recovered 0 messages from it/);
});

Deno.test("a rescue loses no message for lack of space", () => {
  const lines = captureLog();
  using temporary = new TemporarySpool();
  fill(temporary, { count: 12_000 });
  damagePages(temporary.path, pagesWith(temporary.path, "w6000w"));
  // This start may be refused or may succeed; the next one must find all messages.
  try {
    temporary.open({ maxBytes: MEBIBYTE });
  } catch (error) {
    assert.ok(error instanceof SpoolError, String(error));
  }
  const { length } = ids(temporary.open());
  const logged = lines.map((line) =>
    Number(/ Recovered (\d+) messages? from it/.exec(line)?.[1] ?? 0)
  );
  assert.ok(length > 11_900, `${length} messages are left, the log has ${logged}`);
});

Deno.test("attach does not change a damaged file", () => {
  captureLog();
  using temporary = new TemporarySpool();
  fill(temporary);
  damagePages(temporary.path, [0]);
  const before = Deno.readFileSync(temporary.path);
  assert.throws(() => SpoolFile.attach(temporary.config), SpoolError);
  assert.deepEqual(Deno.readFileSync(temporary.path), before);
  assert.deepEqual(temporary.damagedFiles(), []);
});

Deno.test("damage found in use is repaired once and reported to onRescued", () => {
  const works: [string, (spoolFile: SpoolFile) => unknown][] = [
    ["a query", (spoolFile) => spoolFile.all("SELECT sum(length(payload)) FROM message")],
    ["a statement", (spoolFile) => spoolFile.run("UPDATE message SET time_ms = 1")],
    ["a transaction", (spoolFile) => {
      spoolFile.transaction(() => spoolFile.run("UPDATE message SET time_ms = 1"));
    }],
  ];
  for (const [name, work] of works) {
    const lines = captureLog();
    using temporary = new TemporarySpool();
    const spoolFile = temporary.open();
    new Spool(spoolFile).append(messages(2_000, { bytes: 100 }));
    spoolFile.run("UPDATE message SET topic = 'w1000w' WHERE id = 1000");
    let rescues = 0;
    spoolFile.onRescued = () => rescues++;
    damageUnder(temporary, "w1000w");
    assert.throws(() => work(spoolFile), SpoolError, name);
    work(spoolFile);
    assert.deepEqual([name, rescues, lines.length], [name, 1, 1]);
    assert.equal(temporary.damagedFiles().length, 1, name);
    const { length } = ids(spoolFile);
    assert.ok(length > 1_900 && length < 2_000, `${length} messages are left`);
  }
});
