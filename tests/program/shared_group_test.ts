/**
 * Shared groups, on brokers that support shared subscriptions and on brokers that take them for
 * topics: `check` detects the difference, and `run` logs a warning.
 */
import assert from "node:assert/strict";
import { startAedes } from "../support/aedes_broker.ts";
import { type LoggerEnv, loggerEnv, runLogger, startLogger } from "../support/logger_process.ts";
import { startMosquitto } from "../support/mosquitto.ts";
import type { BrokerAddress } from "../support/mqtt_client.ts";
import { startProxy } from "../support/proxy.ts";
import { publishReadings } from "../support/publisher.ts";
import { startRabbitMq } from "../support/rabbitmq.ts";
import { makeReadings } from "../support/readings.ts";
import { linesOf, stopCleanly, usePostgres } from "../support/harness.ts";
import { lacks, type ProgramName } from "../support/programs.ts";

const postgres = usePostgres({ settings: { fsync: "on" } });

interface Kind {
  readonly name: string;
  /** The programs that it needs. */
  readonly programs: readonly ProgramName[];
  readonly supportsSharing: boolean;
  readonly start: () => Promise<BrokerAddress & AsyncDisposable>;
}

const KINDS: readonly Kind[] = [
  { name: "Mosquitto", programs: ["mosquitto"], supportsSharing: true, start: startMosquitto },
  { name: "RabbitMQ", programs: ["rabbitmq-server"], supportsSharing: false, start: startRabbitMq },
  { name: "Aedes", programs: [], supportsSharing: false, start: startAedes },
];

/** The findings of `check` about the group and its exit status, with and without published readings. */
async function check(
  env: LoggerEnv,
  broker: BrokerAddress,
  { isPublishing }: { readonly isPublishing: boolean },
): Promise<{ readonly code: number; readonly findings: readonly string[] }> {
  const enough = new AbortController();
  const publishing = isPublishing
    ? publishReadings(broker, makeReadings({ count: 10_000 }), {
      rate: 50,
      signal: enough.signal,
    })
    : Promise.resolve(0);
  try {
    const { code, stdout } = await runLogger(["check"], env);
    assert.match(
      stdout,
      isPublishing ? /^ok {7}Messages: \d+ within/m : /^note {5}Messages: none/m,
    );
    const findings = stdout.split("\n").filter((line) => /Shared group|^PROBLEM/.test(line));
    return { code, findings };
  } finally {
    enough.abort();
    await publishing;
  }
}

for (const { name, programs, supportsSharing, start } of KINDS) {
  const finds = supportsSharing ? "supports" : "does not support";

  Deno.test(`check finds that ${name} ${finds} shared subscriptions, and run warns if it may not`, {
    ignore: lacks(...programs),
  }, async () => {
    const database = await postgres.createDatabase();
    await using broker = await start();
    const env = loggerEnv({ database, broker }, { MQTT_SHARED_GROUP: "loggers" });
    const silent = await check(env, broker, { isPublishing: false });
    assert.equal(silent.code, 0, silent.findings.join("\n"));
    assert.match(
      silent.findings.join("\n"),
      /^note {5}Shared group: not checked, because no message was published/,
    );
    assert.equal(silent.findings.length, 1);
    const { code, findings } = await check(env, broker, { isPublishing: true });
    assert.deepEqual([code, findings.length], [supportsSharing ? 0 : 1, 1]);
    const problem = "PROBLEM  Shared group: the broker delivers nothing to a shared subscription " +
      "and probably does not support them. Unset MQTT_SHARED_GROUP: with it, the logger receives " +
      "nothing.";
    const ok = "ok       Shared group: the broker supports shared subscriptions.";
    assert.deepEqual(findings, [supportsSharing ? ok : problem]);

    await using proxy = await startProxy(broker);
    await using logger = startLogger({ ...env, MQTT_PORT: String(proxy.port) });
    await logger.waitForLine("Connected to MQTT broker");
    for (let round = 0; round < 2; round++) {
      const from = logger.lines.length;
      assert.equal(proxy.reset(), 1);
      await logger.waitForLine("is available again", { from });
    }
    await stopCleanly(logger);
    const warnings = linesOf(logger, "WARNING").filter((line) => /shared|group/i.test(line));
    assert.equal(warnings.length, supportsSharing ? 0 : 1, warnings.join("\n"));
    for (const warning of warnings) {
      assert.match(
        warning,
        /^MQTT 3\.1\.1 does not say whether the broker supports shared subscript/,
      );
    }
  });
}
