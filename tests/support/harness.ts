/**
 * Shared by the tests of the whole program: one PostgreSQL per file, brokers that log subscriptions,
 * and queries of the logger, the table and the broker.
 */
import assert from "node:assert/strict";
import { TUNING_VARIABLE } from "../../lib/config/tuning.ts";
import type { LoggerProcess } from "./logger_process.ts";
import { type MosquittoBroker, type MosquittoOptions, startMosquitto } from "./mosquitto.ts";
import type { BrokerAddress } from "./mqtt_client.ts";
import { waitUntil } from "./poll.ts";
import { type PostgresOptions, type PostgresServer, startPostgres } from "./postgres.ts";
import type { DatabaseOptions, TestDatabase } from "./postgres_database.ts";
import { publishReadings } from "./publisher.ts";
import { makeReadings, makeSensors } from "./readings.ts";
import { subscribe } from "./subscriber.ts";

/** The client id of the logger in `loggerEnv`. */
export const CLIENT_ID = "kraken-logger-test";

/** The sensors that `makeReadings` uses by default; they are registered in each database. */
export const SENSORS = makeSensors(10);

/** One PostgreSQL for all tests of a file. */
export interface SharedPostgres {
  readonly server: PostgresServer;
  /** Creates a separate database for a test, with {@linkcode SENSORS} registered. */
  createDatabase(options?: Omit<DatabaseOptions, "name">): Promise<TestDatabase>;
}

/** Starts a PostgreSQL before the tests of the calling file, and stops it after them. */
export function usePostgres(options: PostgresOptions = {}): SharedPostgres {
  let server: PostgresServer | undefined;
  let databases = 0;
  Deno.test.beforeAll(async () => {
    // No test simulates a power failure: without fsync, written data survive a killed server, too.
    server = await startPostgres({ ...options, settings: { fsync: "off", ...options.settings } });
  });
  Deno.test.afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
  });
  const getServer = (): PostgresServer => {
    assert.ok(server, "PostgreSQL did not start");
    return server;
  };
  return {
    get server(): PostgresServer {
      return getServer();
    },
    async createDatabase(databaseOptions = {}): Promise<TestDatabase> {
      const name = `sensors ${++databases}`;
      const database = await getServer().createDatabase({ ...databaseOptions, name });
      await database.registerSensors(SENSORS);
      return database;
    },
  };
}

/** Starts a Mosquitto that also logs subscriptions; see {@linkcode waitForSubscription}. */
export async function startTellingMosquitto(
  options: MosquittoOptions = {},
): Promise<MosquittoBroker> {
  const types = ["error", "warning", "notice", "information", "subscribe", "unsubscribe"];
  const config = [...types.map((type) => `log_type ${type}`), ...options.config ?? []];
  return await startMosquitto({ ...options, config });
}

/** The subscription that {@linkcode waitForSubscription} waits for. */
export interface AwaitedSubscription {
  /** `sensors/#` by default. */
  readonly filter?: string;
  /** By default the one of `loggerEnv`. */
  readonly clientId?: string;
  /** How often the client has subscribed since the last start of the broker; once by default. */
  readonly times?: number;
  readonly timeoutMs?: number;
}

/** Waits until the broker has accepted a subscription. */
export async function waitForSubscription(
  broker: MosquittoBroker,
  options: AwaitedSubscription = {},
): Promise<void> {
  const { filter = "sensors/#", clientId = CLIENT_ID, times = 1, timeoutMs = 60_000 } = options;
  const line = new RegExp(`^${clientId} [012] ${filter.replaceAll(/[$+]/g, "\\$&")}$`);
  await waitUntil(() => broker.logLines.filter((text) => line.test(text)).length >= times, {
    timeoutMs,
    what: `${times} subscriptions of ${clientId} to ${filter}`,
  });
}

/** Makes the broker keep messages for a client that has not connected yet. */
export async function createSession(
  broker: BrokerAddress,
  { clientId = CLIENT_ID, filter = "sensors/#" } = {},
): Promise<void> {
  await using _subscriber = await subscribe(broker, { clientId, filter });
}

/** How often a client has connected to Mosquitto since the broker's last start. */
export function countConnections(broker: MosquittoBroker, clientId: string = CLIENT_ID): number {
  const connected = `New client connected from `;
  return broker.logLines.filter((line) =>
    line.startsWith(connected) && line.includes(` as ${clientId} (`)
  ).length;
}

/** Waits until the table has at least `count` rows; returns their number. */
export async function waitForRows(
  database: TestDatabase,
  count: number,
  { timeoutMs = 180_000 } = {},
): Promise<number> {
  return await waitUntil(async () => {
    const rows = await database.countReadings();
    return rows >= count ? rows : null;
    // Counting many rows takes some time.
  }, { what: `${count} rows in the table`, timeoutMs, intervalMs: count < 20_000 ? 25 : 250 });
}

/** Makes every insert take at least this time, so that a fault interrupts one. */
export async function slowInserts(database: TestDatabase, seconds: number): Promise<void> {
  await database.query(`
    CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_sleep(${seconds}); RETURN NULL; END $$;
    CREATE TRIGGER linger AFTER INSERT ON sensor_data EXECUTE FUNCTION linger()`);
}

/** Waits until an insert waits for a lock that the test holds. */
export async function waitForBlockedInsert(database: TestDatabase): Promise<void> {
  await waitUntil(async () => {
    const [row] = await database.query<{ waits: boolean }>(
      "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted) AS waits",
    );
    return row?.waits;
  }, { what: "the insert to wait for the lock" });
}

/** The outcomes of the messages, as the logger has logged them. */
export interface Counts {
  readonly received: number;
  readonly stored: number;
  readonly duplicates: number;
  readonly unknown: number;
  readonly disabled: number;
  readonly rejected: number;
  readonly dropped: number;
  readonly redelivered: number;
  /** Found in the spool at the start. */
  readonly found: number;
  /** In the spool at the end. */
  readonly spooled: number;
  readonly waiting: number;
  /** Lost because the spool was damaged while the logger ran. */
  readonly unreadable: number;
}

/** The words of the last log line for each count. */
const COUNT_WORDS: Readonly<Record<keyof Counts, string>> = {
  received: "messages? received",
  stored: "stored",
  duplicates: "duplicates?",
  unknown: "of unknown sensors",
  disabled: "of disabled sensors",
  rejected: "rejected",
  dropped: "dropped",
  redelivered: "redelivered while in flight",
  found: "found in the spool",
  spooled: "in the spool",
  waiting: "waiting",
  unreadable: "unreadable in the spool",
};

/**
 * The counts in the last line of a stopped logger; 0 for a count that is not mentioned. Asserts that
 * the logger has logged no contradiction between its counts and its memory.
 */
export function readCounts(logger: LoggerProcess): Counts {
  expectNoDefect(logger);
  const text = logger.lines.findLast((line) => line.includes("Stopped: "));
  assert.ok(text, `no counts in the output:\n${logger.lines.slice(-20).join("\n")}`);
  const entries = Object.entries(COUNT_WORDS).map(([name, words]) => {
    const count = new RegExp(`(\\d+) ${words}[,.]`).exec(text)?.[1];
    return [name, Number(count ?? 0)];
  });
  const counts = Object.fromEntries(entries) as Counts;
  const { received, found, stored, duplicates, unknown, disabled, rejected } = counts;
  const ended = stored + duplicates + unknown + disabled + rejected + counts.dropped;
  const left = counts.spooled + counts.unreadable + counts.waiting;
  // The logger computes `waiting` as the rest, so this finds a count that the line does not mention.
  assert.equal(received + found, ended + left, `the counts do not add up: ${text}`);
  return counts;
}

/**
 * Asserts that the logger has logged no defect. When it stops, it compares its counts with the
 * messages that are left in memory.
 */
function expectNoDefect(logger: LoggerProcess): void {
  assert.deepEqual(logger.lines.filter((line) => /do not add up|defect/.test(line)), []);
}

/** Stops the logger, which must exit with status 0; returns its counts. */
export async function stopCleanly(
  logger: LoggerProcess,
  signal: Deno.Signal = "SIGTERM",
): Promise<Counts> {
  const status = await logger.stop(signal);
  // Wrong counts may be the cause of another status.
  const counts = readCounts(logger);
  assert.equal(status, 0, `output:\n${logger.lines.slice(-20).join("\n")}`);
  return counts;
}

/**
 * Waits until the logger has received all that the broker has for it, and stops it. Returns its
 * counts, which include one additional message of an unknown sensor.
 *
 * @param topic a topic that only this logger subscribes to.
 */
export async function stopWhenDrained(
  logger: LoggerProcess,
  broker: BrokerAddress,
  topic = "sensors/marker",
): Promise<Counts> {
  await logger.waitForLine("Connected to MQTT broker");
  // The broker delivers it after all messages that it still has for this session.
  const sensor = { uuid: crypto.randomUUID() };
  const readings = makeReadings({ count: 1, sensors: [sensor] });
  await publishReadings(broker, readings, { topic, qos: 1 });
  await logger.waitForLine(`Sensor ${sensor.uuid} sid 0`);
  return await stopCleanly(logger);
}

/** Asserts that the broker has no message for a logger that was just started, and stops it. */
export async function expectNothingLeft(
  ...args: Parameters<typeof stopWhenDrained>
): Promise<void> {
  const counts = await stopWhenDrained(...args);
  assert.deepEqual([counts.received, counts.unknown], [1, 1]);
}

/**
 * The lines of a level, without their time and level, and without the warning about
 * `KRAKEN_TEST_TUNING`, which the tests set.
 */
export function linesOf(
  logger: LoggerProcess,
  level: "DEBUG" | "INFO" | "WARNING" | "ERROR" | "CRITICAL",
): string[] {
  return logger.lines
    .map((line) => /^\S+ \S+ (\S+) +(.*)$/.exec(line))
    .filter((match) => match?.[1] === level)
    .map((match) => match?.[2] ?? "")
    .filter((line) => !line.startsWith(`${TUNING_VARIABLE} is set`));
}

/** Asserts that there is exactly one line of the level that matches, and returns it. */
export function onlyLine(
  logger: LoggerProcess,
  level: Parameters<typeof linesOf>[1],
  pattern: RegExp,
): string {
  const lines = linesOf(logger, level).filter((line) => pattern.test(line));
  assert.equal(lines.length, 1, `${pattern} among:\n${linesOf(logger, level).join("\n")}`);
  return lines[0] as string;
}
