/** The state of the database: outage, status and log lines, by what happens to its connections. */
import assert from "node:assert/strict";
import { Backoff } from "../../../lib/common/backoff.ts";
import { DatabaseState, type Worker } from "../../../lib/pipeline/database_state.ts";
import { COLUMNS } from "../../fakes/fake_database.ts";
import { FakeTime, settle } from "../../fakes/fake_time.ts";
import { databaseConfig } from "../../fakes/writer_scene.ts";
import { captureLog, withoutTime } from "../../support/captured_log.ts";

/** A state with connections and waiting messages that a test sets. */
class Scene implements Disposable {
  readonly time = new FakeTime();
  readonly workers: readonly Worker[] = [{ backoff: new Backoff() }, { backoff: new Backoff() }];
  waiting = 0;
  readonly state = new DatabaseState(databaseConfig(2), () => this.waiting);
  readonly #lines = captureLog({ level: "INFO" });
  readonly #stop = new AbortController();
  /** How many workers are to retry by now. */
  due = 0;

  get lines(): string[] {
    return this.#lines.map(withoutTime);
  }

  worker(index: number): Worker {
    const worker = this.workers[index];
    assert.ok(worker);
    return worker;
  }

  fail(index: number, reason = "connection refused"): void {
    this.state.failed(this.worker(index), { reason, signal: this.#stop.signal })
      .then(() => this.due++);
  }

  open(index: number): Disposable {
    return this.state.opened(this.worker(index), COLUMNS);
  }

  succeed(index: number): void {
    this.state.succeeded(this.worker(index), COLUMNS);
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
    this.time[Symbol.dispose]();
  }
}

Deno.test("the first connection is logged once, and the status says where it is", async () => {
  using scene = new Scene();
  assert.deepEqual([scene.state.status.connected, scene.state.isUnavailable], [false, false]);
  using _ = scene.open(0);
  using _other = scene.open(1);
  scene.succeed(0);
  const { connected, text, reconnects } = scene.state.status;
  assert.deepEqual(
    [connected, text, reconnects],
    [true, "connected to database 'sensors' at 'db:5432'", 0],
  );
  assert.deepEqual(scene.lines, ["INFO     Connected to database 'sensors' at 'db:5432'."]);
  await settle();
});

Deno.test("a table without a unique key is warned of once", () => {
  using scene = new Scene();
  const columns = { ...COLUMNS, uniqueKey: false };
  for (let round = 0; round < 3; round++) scene.state.succeeded(scene.worker(0), columns);
  const warnings = scene.lines.filter((line) => line.startsWith("WARNING"));
  assert.match(warnings.join("\n"), /no unique key.*ADD UNIQUE \(sensor_id, time\);$/);
  assert.equal(warnings.length, 1);
});

Deno.test("while messages wait, an open connection is no proof that rows are accepted", () => {
  using scene = new Scene();
  scene.fail(0);
  scene.waiting = 3;
  using _ = scene.open(0);
  assert.deepEqual([scene.state.status.connected, scene.state.isUnavailable], [false, false]);
  scene.succeed(0);
  assert.equal(scene.state.status.connected, true);
  assert.match(
    scene.lines.join("\n"),
    /ERROR .* not available: .*\nINFO .* available again .*3 mes/,
  );
});

Deno.test("the database is unavailable when no connection works although one was tried", async () => {
  using scene = new Scene();
  const [first, second] = [scene.open(0), scene.open(1)];
  assert.equal(scene.state.isUnavailable, false);
  first[Symbol.dispose]();
  scene.fail(0);
  assert.deepEqual([scene.state.isUnavailable, scene.state.status.connected], [false, true]);
  second[Symbol.dispose]();
  assert.equal(scene.state.isUnavailable, true);
  scene.fail(1, "the server is shutting down");
  assert.deepEqual(
    [scene.state.status.connected, scene.state.status.text],
    [false, "the server is shutting down"],
  );
  await scene.time.pass(100);
  using _ = scene.open(0);
  assert.deepEqual(
    [scene.state.isUnavailable, scene.state.status.connected, scene.state.status.reconnects],
    [false, true, 1],
  );
});

Deno.test("the database is not unavailable because a working connection was closed", () => {
  using scene = new Scene();
  scene.fail(0);
  assert.equal(scene.state.isUnavailable, true);
  scene.open(0)[Symbol.dispose]();
  assert.equal(scene.state.isUnavailable, false);
  scene.fail(0);
  assert.equal(scene.state.isUnavailable, true);
});

Deno.test("an outage of all connections is one ERROR and one INFO", async () => {
  using scene = new Scene();
  for (let round = 0; round < 5; round++) {
    scene.fail(0);
    scene.fail(1);
    await scene.time.pass(20_000);
  }
  using _ = scene.open(1);
  using _other = scene.open(0);
  const lines = scene.lines.map((line) => line.split(" ")[0]);
  assert.deepEqual(lines, ["ERROR", "INFO", "INFO"]);
  assert.match(scene.lines[1] ?? "", /available again after 100\.0 s/);
});

Deno.test("the delay grows with each failure, and a success resets it", async () => {
  using scene = new Scene();
  for (let failure = 1; failure <= 8; failure++) {
    scene.fail(0);
    await scene.time.pass(20_000);
    assert.equal(scene.due, failure);
  }
  scene.fail(0);
  await scene.time.pass(7_000);
  assert.equal(scene.due, 8, "the ninth delay is longer than 7.5 s");
  await scene.time.pass(8_000);
  scene.succeed(0);
  scene.fail(0);
  await scene.time.pass(100);
  assert.equal(scene.due, 10);
});

Deno.test("a success lets the other connections retry at once", async () => {
  using scene = new Scene();
  for (let failure = 0; failure < 8; failure++) {
    scene.fail(0);
    await scene.time.pass(20_000);
  }
  scene.fail(0);
  scene.fail(1);
  await scene.time.pass(1_000);
  const before = scene.due;
  scene.succeed(1);
  await settle();
  assert.equal(scene.due, before + 1);
});

Deno.test("when no message waits any more, every open connection counts as working", () => {
  using scene = new Scene();
  scene.fail(0);
  scene.fail(1);
  scene.waiting = 2;
  using _ = scene.open(0);
  const other = scene.open(1);
  scene.waiting = 1;
  scene.state.batchEnded(COLUMNS);
  assert.equal(scene.state.status.connected, false, "a message still waits");
  scene.waiting = 0;
  scene.state.batchEnded(COLUMNS);
  assert.equal(scene.state.status.connected, true);
  const errors = (): number => scene.lines.filter((line) => line.startsWith("ERROR")).length;
  assert.equal(errors(), 1);
  other[Symbol.dispose]();
  scene.fail(1);
  assert.equal(errors(), 2, "a connection that worked has failed, which is another outage");
});
