/**
 * The session of the logger is taken over by another client with the same client id: repeatedly by
 * a second logger with a copy of the configuration, and by another client, which ends eventually.
 */
import assert from "node:assert/strict";
import { loggerEnv, type LoggerProcess, startLogger } from "../support/logger_process.ts";
import type { MosquittoBroker } from "../support/mosquitto.ts";
import { closeClient, openClient } from "../support/mqtt_client.ts";
import { waitUntil } from "../support/poll.ts";
import { expectStored, toPayload } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  CLIENT_ID,
  linesOf,
  onlyLine,
  stopCleanly,
  stopWhenDrained,
  usePostgres,
  waitForRows,
} from "../support/harness.ts";
import {
  countRecoveries,
  findMissing,
  outagesOf,
  startLoad,
  waitForOutageEnds,
} from "./broker_load.ts";
import { lacks } from "../support/programs.ts";
import { tune } from "../support/tuning.ts";

const postgres = usePostgres();

/** How the logger detects the takeover. */
interface Variant {
  readonly name: string;
  readonly version: 4 | 5;
  /** Whether the broker sends the reason for the end of the connection. */
  readonly told: boolean;
  /** The minimum delays before it reconnects. */
  readonly delaysMs: readonly number[];
  /** Number of takeovers to wait for; they take some seconds. */
  readonly takeovers: number;
}

const TOLD_DELAYS = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000];

/** The delays after any end of a connection, until a takeover is suspected. */
const SUSPECTED_DELAYS = [50, 100, 200, 400, ...TOLD_DELAYS];

const VARIANTS: readonly Variant[] = [
  { name: "of MQTT 5", version: 5, told: true, delaysMs: TOLD_DELAYS, takeovers: 4 },
  // The connection is closed without a DISCONNECT.
  { name: "of MQTT 3.1.1", version: 4, told: false, delaysMs: SUSPECTED_DELAYS, takeovers: 14 },
  // … by Mosquitto before 2.0.15 as well.
  {
    name: "of MQTT 5 without a reason code",
    version: 5,
    told: false,
    delaysMs: SUSPECTED_DELAYS,
    takeovers: 14,
  },
];

const SUSPECTED = /Another client may be using the same client id/;
const TAKEN_OVER = /another client has connected with the same client id/;

function countTakeovers(broker: MosquittoBroker): number {
  return broker.logLines.filter((line) => line.includes("already connected, closing old")).length;
}

/**
 * Asserts that the log reports the takeovers once, for any number of them, and no connection except
 * the first one and the one that remained, if any.
 */
function expectOneLine(logger: LoggerProcess, { remained }: { readonly remained: boolean }): void {
  assert.match(onlyLine(logger, "ERROR", /./), TAKEN_OVER);
  const connections = linesOf(logger, "INFO").filter((line) =>
    line.startsWith("Connected to MQTT")
  );
  assert.equal(connections.length, remained ? 2 : 1);
  assert.equal(countRecoveries(logger), remained ? 1 : 0);
}

/** How long a connection must last until it counts as the last one. */
const SHORT_DOUBT = tune({ takeoverDoubtMs: 2_000 });

/** Asserts that the log reports the suspicion once, and no connection after it. */
function expectOneSuspicion(logger: LoggerProcess): void {
  onlyLine(logger, "WARNING", SUSPECTED);
  const since = logger.lines.slice(logger.lines.findIndex((line) => SUSPECTED.test(line)));
  assert.deepEqual(since.filter((line) => /MQTT broker .* is available again/.test(line)), []);
  assert.ok(since.filter((line) => / ERROR /.test(line)).length <= 1, since.join("\n"));
}

/** The maximum number of takeovers by two loggers within a time, for the given delays. */
function mostTakeovers(elapsedMs: number, delaysMs: readonly number[]): number {
  let remainingMs = elapsedMs;
  const waits = delaysMs.findIndex((delayMs) => (remainingMs -= delayMs) < 0);
  assert.ok(waits >= 0, `${elapsedMs} ms are longer than all delays`);
  // A logger that loses its session for the n-th time has waited n - 1 times.
  return 2 * (waits + 1);
}

for (const { name, version, told, delaysMs, takeovers: count } of VARIANTS) {
  const env = { MQTT_PROTOCOL_VERSION: String(version) };

  Deno.test(`run backs off when another logger takes over its session ${name}`, {
    ignore: lacks("mosquitto"),
  }, async () => {
    using directory = withTemporaryDirectory();
    const database = await postgres.createDatabase();
    await using load = await startLoad(database, { env, tellsTakeovers: told });
    const { broker, address } = load;
    await using other = startLogger(loggerEnv({ database, broker: address }, {
      ...env,
      SPOOL_DIRECTORY: directory.path,
    }));
    const loggers = [load.logger, other];
    await waitUntil(() => countTakeovers(broker) > 0, { what: "the first takeover" });
    const startMs = performance.now();
    const before = countTakeovers(broker);
    await waitUntil(() => countTakeovers(broker) >= count, {
      what: `${count} takeovers`,
      timeoutMs: 180_000,
    });
    const takeovers = countTakeovers(broker) - before;
    const elapsedMs = performance.now() - startMs;
    const most = mostTakeovers(elapsedMs, delaysMs);
    assert.ok(takeovers <= most, `${takeovers} takeovers in ${elapsedMs} ms`);

    const readings = (await load.finishDaemons()).flat();
    await waitForRows(database, readings.length);
    await expectStored(database, readings);
    for (const logger of loggers) {
      if (told) expectOneLine(logger, { remained: false });
      else expectOneSuspicion(logger);
      assert.ok(outagesOf(logger).length > 0);
    }
    const counts = await Promise.all(loggers.map((logger) => stopCleanly(logger)));
    const stored = counts.map((count) => count.stored);
    assert.equal(stored.reduce((sum, count) => sum + count), readings.length);
    assert.ok(Math.min(...stored) > 0, "one of them has stored nothing");
  });

  Deno.test(`run keeps every reading that another client does not take with its session ${name}`, {
    ignore: lacks("mosquitto"),
  }, async () => {
    const database = await postgres.createDatabase();
    await using load = await startLoad(database, {
      env: { ...env, ...SHORT_DOUBT },
      tellsTakeovers: told,
    });
    const { broker, logger } = load;
    // The logger never receives what this client acknowledges.
    const taken = new Set<string>();
    await load.waitForStored(50);
    for (let round = 1; round <= 2; round++) {
      const client = await openClient(broker, {
        clientId: CLIENT_ID,
        protocolVersion: version,
        onPublish: ({ payload }) => taken.add(payload.toString()),
      });
      try {
        await waitUntil(() => !client.connected, { what: "the logger to take the session back" });
      } finally {
        await closeClient(client);
      }
      await waitUntil(() => countTakeovers(broker) === 2 * round, {
        what: `${2 * round} takeovers in the log of the broker`,
      });
    }
    await waitForOutageEnds(logger);
    if (told) expectOneLine(logger, { remained: true });
    const published = (await load.finishDaemons()).flat();
    const counts = await stopWhenDrained(logger, broker);
    const missing = await findMissing(database, published);
    const lost = [...missing].map(toPayload).filter((payload) => !taken.has(payload));
    assert.deepEqual(lost, []);
    assert.ok(taken.size > 0, "the other client received nothing");
    const readings = published.filter((reading) => !missing.has(reading));
    await expectStored(database, readings);
    assert.deepEqual([counts.stored, counts.unknown], [readings.length, 1]);
  });
}
