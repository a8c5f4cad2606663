/** A writer with a fake database, a real inbox and real outcomes, in fake time. */
import assert from "node:assert/strict";
import type { DatabaseConfig } from "../../lib/config/database.ts";
import { DEFAULT_TUNING } from "../../lib/config/tuning.ts";
import type { Delivery } from "../../lib/message/delivery.ts";
import { DatabaseState } from "../../lib/pipeline/database_state.ts";
import { Inbox } from "../../lib/pipeline/inbox.ts";
import { Outcomes } from "../../lib/pipeline/outcomes.ts";
import { Statistics } from "../../lib/pipeline/statistics.ts";
import { Writer } from "../../lib/pipeline/writer.ts";
import type { SpoolFile } from "../../lib/spool/file.ts";
import { captureLog, withoutTime } from "../support/captured_log.ts";
import { FakeDatabase } from "./fake_database.ts";
import { FakeTime } from "./fake_time.ts";

/** A configuration for parts that do not connect themselves. */
export function databaseConfig(connections = 1): DatabaseConfig {
  return {
    ...{ ca: undefined, cert: undefined, key: undefined },
    ...{ endpoint: { host: "db", port: 5432 }, user: "u", password: "p", name: "sensors" },
    ...{ sslMode: "disable", connections, tuning: DEFAULT_TUNING },
  };
}

export interface WriterSceneOptions {
  readonly connections?: number;
  /** Where rejected messages and unknown sensors are recorded. */
  readonly spoolFile?: SpoolFile;
}

/** The parts; the caller ends the scene with `end`, and disposes it. */
export class WriterScene implements Disposable {
  readonly time = new FakeTime();
  readonly database = new FakeDatabase();
  readonly inbox = new Inbox();
  readonly statistics = new Statistics();
  readonly state: DatabaseState;
  readonly writer: Writer;
  readonly #lines = captureLog();
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor({ connections = 1, spoolFile }: WriterSceneOptions = {}) {
    const { inbox, statistics } = this;
    const config = databaseConfig(connections);
    this.state = new DatabaseState(config, () => statistics.waiting);
    const options = { statistics, spoolFile, onInserted: undefined, tuning: DEFAULT_TUNING };
    this.writer = new Writer(config, {
      ...{ inbox, state: this.state, open: this.database.open },
      outcomes: new Outcomes(options),
    });
  }

  /** What the log has at these levels, without times. */
  lines(...levels: readonly string[]): string[] {
    return this.#lines.map(withoutTime).filter((line) => levels.includes(line.split(" ")[0] ?? ""));
  }

  /** Starts the writer, and lets it do what it can. */
  async start(): Promise<void> {
    this.#running = this.writer.run(this.#stop.signal);
    await this.time.pass(0);
  }

  /** Puts messages into the inbox, and lets the writer do what it can. */
  async receive(...deliveries: readonly Delivery[]): Promise<void> {
    this.statistics.received += deliveries.length;
    for (const delivery of deliveries) assert.ok(this.inbox.push(delivery));
    await this.time.pass(0);
  }

  abort(): void {
    this.#stop.abort();
  }

  /** Waits for the end of the writer, which must leave neither a connection nor a timer. */
  async ended(): Promise<void> {
    await this.#running;
    assert.deepEqual(this.database.closings, this.database.connections.map(() => 1));
  }

  /** Ends the writer when the inbox is empty. */
  async end(): Promise<void> {
    this.inbox.close();
    await this.ended();
    assert.equal(this.time.pending, 0);
  }

  [Symbol.dispose](): void {
    this.time[Symbol.dispose]();
  }
}
