/**
 * Encrypted connections to a real Mosquitto: trusted and untrusted certificates, and the reasons in
 * the log and in the output of `check`.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import type { Certificate } from "../support/certificates.ts";
import { loggerEnv, runLogger, startLogger } from "../support/logger_process.ts";
import { type MosquittoBroker, startMosquitto } from "../support/mosquitto.ts";
import { findFreePort, LOOPBACK } from "../support/ports.ts";
import { publishReadings } from "../support/publisher.ts";
import { makeReadings } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import { createSession, stopCleanly, usePostgres, waitForRows } from "../support/harness.ts";
import {
  authority,
  type Case,
  CLIENT,
  EXPIRED,
  EXPIRED_CLIENT,
  filesEnv,
  FUTURE,
  GOOD,
  OTHER_HOST,
  SAYS_EXPIRED,
  SAYS_FUTURE,
  SAYS_ITSELF,
  SAYS_OTHER_HOST,
  SAYS_UNKNOWN,
  SIGNED_BY_ITSELF,
  STRANGE_CLIENT,
  stranger,
  STRANGERS,
} from "./tls_scene.ts";
import { lacks } from "../support/programs.ts";

const postgres = usePostgres({ settings: { fsync: "on" } });

const TRUSTING = { MQTT_CA_FILE: authority.cert };

const BROKER_CASES: readonly Case[] = [
  { name: "a valid certificate", server: GOOD, files: TRUSTING },
  { name: "a valid certificate, by name", server: GOOD, host: "localhost", files: TRUSTING },
  {
    name: "a certificate of one of several authorities",
    server: GOOD,
    files: { MQTT_CA_FILE: stranger.cert + authority.cert },
  },
  { name: "an expired certificate", server: EXPIRED, files: TRUSTING, says: SAYS_EXPIRED },
  {
    name: "a certificate that is not valid yet",
    server: FUTURE,
    files: TRUSTING,
    says: SAYS_FUTURE,
  },
  {
    name: "a certificate for another host",
    server: OTHER_HOST,
    files: TRUSTING,
    says: SAYS_OTHER_HOST,
  },
  {
    name: "a certificate for another host, by name",
    server: OTHER_HOST,
    host: "localhost",
    files: TRUSTING,
    says: SAYS_OTHER_HOST,
  },
  {
    name: "a certificate of an unknown authority",
    server: STRANGERS,
    files: TRUSTING,
    says: SAYS_UNKNOWN,
  },
  { name: "a self-signed certificate", server: SIGNED_BY_ITSELF, says: SAYS_ITSELF },
  { name: "a certificate that the system does not trust", server: GOOD, says: SAYS_UNKNOWN },
  {
    name: "a certificate that the system trusts",
    server: GOOD,
    files: { SSL_CERT_FILE: stranger.cert + authority.cert },
  },
  {
    name: "a certificate that only the system trusts",
    server: GOOD,
    files: { SSL_CERT_FILE: authority.cert, MQTT_CA_FILE: stranger.cert },
    says: SAYS_UNKNOWN,
  },
];

async function startTlsBroker(
  server: Certificate,
  config: readonly string[] = [],
): Promise<MosquittoBroker> {
  return await startMosquitto({
    config: ["cafile ca.pem", "certfile cert.pem", "keyfile key.pem", ...config],
    files: { "ca.pem": authority.cert, "cert.pem": server.cert, "key.pem": server.key },
  });
}

for (const { name, server, host = "127.0.0.1", files = {}, says } of BROKER_CASES) {
  Deno.test(`run and check ${says ? "refuse" : "accept"} a broker with ${name}`, {
    ignore: lacks("mosquitto"),
  }, async () => {
    using directory = withTemporaryDirectory();
    const database = await postgres.createDatabase();
    await using broker = await startTlsBroker(server);
    const env = loggerEnv({ database, broker }, {
      MQTT_HOST: host,
      MQTT_TLS: "on",
      ...filesEnv(directory.path, files),
    });
    await using logger = startLogger(env);
    if (says === undefined) {
      await logger.waitForLine("Connected to MQTT broker");
    } else {
      const line = await logger.waitForLine(/ERROR +MQTT broker .* is not available/);
      assert.match(line, says);
    }
    const { code, stdout } = await runLogger(["check"], env);
    assert.equal(code, says === undefined ? 0 : 1, stdout);
    if (says !== undefined) assert.match(stdout, says);
    await stopCleanly(logger);
  });
}

Deno.test("readings arrive over TLS, and the logger reconnects after a certificate was renewed", {
  ignore: lacks("mosquitto"),
}, async () => {
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  // A second listener, without TLS, for the publisher.
  const plain = { host: LOOPBACK, port: findFreePort() };
  const door = [`listener ${plain.port} ${plain.host}`];
  const options = { config: ["cafile ca.pem", "certfile cert.pem", "keyfile key.pem", ...door] };
  const files = { "ca.pem": authority.cert, "cert.pem": EXPIRED.cert, "key.pem": EXPIRED.key };
  await using broker = await startMosquitto({ ...options, files });
  await createSession(plain);
  await using logger = startLogger(loggerEnv({ database, broker }, {
    MQTT_TLS: "on",
    ...filesEnv(directory.path, TRUSTING),
  }));
  await logger.waitForLine(SAYS_EXPIRED);
  await broker.stop();
  broker.writeFiles({ "cert.pem": GOOD.cert, "key.pem": GOOD.key });
  await broker.start();
  await logger.waitForLine("Connected to MQTT broker", { timeoutMs: 180_000 });
  const readings = makeReadings({ count: 100 });
  await publishReadings({ ...plain, receiveMaximum: 20 }, readings, { qos: 1 });
  await waitForRows(database, readings.length);
  await stopCleanly(logger);
});

const CLIENT_CASES = [
  { name: "the right client certificate", client: CLIENT },
  { name: "no client certificate", says: /requires a client certificate|the broker closed|reset/ },
  {
    name: "one of an unknown authority",
    client: STRANGE_CLIENT,
    says: /client certificate|closed|reset/,
  },
  {
    name: "an expired one",
    client: EXPIRED_CLIENT,
    says: /client certificate|closed|reset/,
  },
];

for (const { name, client, says } of CLIENT_CASES) {
  Deno.test(`a broker that requires a client certificate is shown ${name}`, {
    ignore: lacks("mosquitto"),
  }, async () => {
    using directory = withTemporaryDirectory();
    const database = await postgres.createDatabase();
    await using broker = await startTlsBroker(GOOD, ["require_certificate true"]);
    await using logger = startLogger(loggerEnv({ database, broker }, {
      MQTT_TLS: "on",
      ...filesEnv(directory.path, {
        ...TRUSTING,
        ...(client && { MQTT_CERT_FILE: client.cert, MQTT_KEY_FILE: client.key }),
      }),
    }));
    if (says === undefined) await logger.waitForLine("Connected to MQTT broker");
    else assert.match(await logger.waitForLine(/ERROR +MQTT broker .* not available/), says);
    await stopCleanly(logger);
  });
}

Deno.test("a broker without TLS is logged differently from one that is not trusted", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await using logger = startLogger(loggerEnv({ database, broker }, { MQTT_TLS: "on" }));
  const line = await logger.waitForLine(/ERROR +MQTT broker .* not available/);
  assert.match(line, /does not speak TLS|closed|reset|no answer/);
  await stopCleanly(logger);
});

Deno.test("certificates and keys that cannot be used are errors of the configuration", async () => {
  using directory = withTemporaryDirectory();
  const nobody = { host: LOOPBACK, port: findFreePort() };
  const database = { logger: { ...nobody, user: "u", password: "p", database: "d" } };
  const check = async (files: Readonly<Record<string, string>>): Promise<string[]> => {
    const { code, stderr } = await runLogger(
      ["check"],
      loggerEnv({ database, broker: nobody }, {
        MQTT_TLS: "on",
        ...filesEnv(directory.path, files),
      }),
    );
    assert.equal(code, 78, stderr);
    return stderr.trimEnd().split("\n").slice(1);
  };
  const { cert, key } = CLIENT;
  const broken = await check({
    MQTT_CA_FILE: authority.cert + stranger.cert.slice(0, 500),
    MQTT_CERT_FILE: cert,
    MQTT_KEY_FILE: key.slice(0, 500),
  });
  assert.equal(broken.length, 2);
  assert.match(
    broken[0] ?? "",
    /^MQTT_CA_FILE: .* valid certificates: certificate 2 of 2 cannot be parsed, received/,
  );
  assert.match(
    broken[1] ?? "",
    /^MQTT_KEY_FILE: .* valid private key: the key cannot be parsed, received/,
  );
  const [line, ...others] = await check({
    MQTT_CERT_FILE: cert,
    MQTT_KEY_FILE: STRANGE_CLIENT.key,
  });
  assert.match(
    line ?? "",
    /^MQTT_KEY_FILE: must name the key that belongs to the certificate in MQTT_CERT_FILE/,
  );
  assert.deepEqual(others, []);
});
