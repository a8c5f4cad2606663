/**
 * Encrypted connections to a real Mosquitto and a real PostgreSQL: who is trusted, who is not, and
 * what the log and `check` say of it.
 */
import assert from "node:assert/strict";
import { startBroker } from "../services/broker.ts";
import { type Certificate, CertificateAuthority } from "../services/certificates.ts";
import { type LoggerEnv, loggerEnv, runLogger, startLogger } from "../services/logger_process.ts";
import { type MosquittoBroker, startMosquitto } from "../services/mosquitto.ts";
import { type PostgresServer, startPostgres } from "../services/postgres.ts";
import { LOGGER_ROLE, type TestDatabase } from "../services/postgres_database.ts";
import { findFreePort, LOOPBACK } from "../services/ports.ts";
import { publishReadings } from "../services/publisher.ts";
import { makeReadings } from "../services/readings.ts";
import { withTemporaryDirectory } from "../services/temporary_directory.ts";
import { withoutSources } from "./broken_sources.ts";
import { SENSORS, stopCleanly, usePostgres, waitForRows, withoutMosquitto } from "./harness.ts";

const postgres = usePostgres();
const authority = new CertificateAuthority();
const stranger = new CertificateAuthority("Somebody else's CA");
const HOSTS = ["localhost", "127.0.0.1"];

const GOOD = authority.issue({ hosts: HOSTS });
const EXPIRED = authority.issue({ hosts: HOSTS, validDays: [-10, -1] });
const FUTURE = authority.issue({ hosts: HOSTS, validDays: [1, 10] });
const OTHER_HOST = authority.issue({ hosts: ["db.lab"] });
const STRANGERS = stranger.issue({ hosts: HOSTS });
const CLIENT = authority.issue({ name: LOGGER_ROLE });
const STRANGE_CLIENT = stranger.issue({ name: LOGGER_ROLE });

/** What the log says of a certificate. */
const SAYS_EXPIRED = /its certificate has expired/;
const SAYS_FUTURE =
  /its certificate is (valid only from \d{4}-\d\d-\d\d on|not valid yet), or the clock/;
const SAYS_OTHER_HOST = /its certificate is for another host name/;
const SAYS_UNKNOWN =
  /its certificate is not signed by a certificate authority that is trusted here/;

/** Writes texts to files and names them by variables. */
function filesEnv(directory: string, texts: Readonly<Record<string, string>>): LoggerEnv {
  return Object.fromEntries(
    Object.entries(texts).map(([name, text]) => {
      const path = `${directory}/${name}.pem`;
      Deno.writeTextFileSync(path, text);
      return [name, path];
    }),
  );
}

interface Case {
  readonly name: string;
  readonly server: Certificate;
  /** By this name or address it is reached; an address by default. */
  readonly host?: string;
  /** Beside the files. */
  readonly env?: LoggerEnv;
  readonly files?: Readonly<Record<string, string>>;
  /** Undefined: it works. */
  readonly says?: RegExp;
}

const TRUSTING = { MQTT_CA_FILE: authority.cert };

const BROKER_CASES: readonly Case[] = [
  { name: "a good certificate", server: GOOD, files: TRUSTING },
  { name: "a good certificate, by name", server: GOOD, host: "localhost", files: TRUSTING },
  {
    name: "one of several authorities",
    server: GOOD,
    files: { MQTT_CA_FILE: stranger.cert + authority.cert },
  },
  { name: "an expired certificate", server: EXPIRED, files: TRUSTING, says: SAYS_EXPIRED },
  { name: "a certificate of the future", server: FUTURE, files: TRUSTING, says: SAYS_FUTURE },
  { name: "another host's", server: OTHER_HOST, files: TRUSTING, says: SAYS_OTHER_HOST },
  {
    name: "another host's, by name",
    server: OTHER_HOST,
    host: "localhost",
    files: TRUSTING,
    says: SAYS_OTHER_HOST,
  },
  { name: "an unknown authority's", server: STRANGERS, files: TRUSTING, says: SAYS_UNKNOWN },
  { name: "one that the system does not trust", server: GOOD, says: SAYS_UNKNOWN },
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
    ignore: withoutMosquitto,
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

Deno.test("readings arrive over TLS, and the logger goes on once a certificate is renewed", {
  ignore: withoutMosquitto,
}, async () => {
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  // A second door, without TLS, for the publisher.
  const plain = { host: LOOPBACK, port: findFreePort() };
  const door = [`listener ${plain.port} ${plain.host}`];
  const options = { config: ["cafile ca.pem", "certfile cert.pem", "keyfile key.pem", ...door] };
  const files = { "ca.pem": authority.cert, "cert.pem": EXPIRED.cert, "key.pem": EXPIRED.key };
  await using broker = await startMosquitto({ ...options, files });
  await using logger = startLogger(loggerEnv({ database, broker }, {
    MQTT_TLS: "on",
    ...filesEnv(directory.path, TRUSTING),
  }));
  await logger.waitForLine(SAYS_EXPIRED);
  await broker.stop();
  broker.writeFiles({ "cert.pem": GOOD.cert, "key.pem": GOOD.key });
  await broker.start();
  await logger.waitForLine("Connected to MQTT broker", { timeoutMs: 40_000 });
  const readings = makeReadings({ count: 100 });
  await publishReadings({ ...plain, receiveMaximum: 20 }, readings, { qos: 1 });
  await waitForRows(database, readings.length);
  await stopCleanly(logger);
});

/** The fallback compiler's runtime sends no client certificates: see README, "Encryption". */
const CLIENT_CASES = [
  { name: "the right client certificate", client: CLIENT },
  { name: "no client certificate", says: /demands a client certificate|the broker closed|reset/ },
  {
    name: "an unknown authority's",
    client: STRANGE_CLIENT,
    says: /client certificate|closed|reset/,
  },
];

for (const { name, client, says } of CLIENT_CASES) {
  Deno.test(`a broker that wants a client certificate is shown ${name}`, {
    ignore: withoutMosquitto || (withoutSources && says === undefined),
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

Deno.test("a broker that does not speak TLS is told from one that is not trusted", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await using logger = startLogger(loggerEnv({ database, broker }, { MQTT_TLS: "on" }));
  const line = await logger.waitForLine(/ERROR +MQTT broker .* not available/);
  assert.match(line, /does not speak TLS|closed|reset|no answer/);
  await stopCleanly(logger);
});

const DATABASE_TRUSTING = { DATABASE_CA_FILE: authority.cert };

/** The modes of libpq (PostgreSQL manual, table "SSL Mode Descriptions"), good and bad. */
const DATABASE_CASES: readonly Case[] = [
  ...["disable", "prefer", "require"].flatMap((mode) =>
    [GOOD, EXPIRED, OTHER_HOST, STRANGERS].map((server, index) => ({
      name: `${mode}, whatever the certificate (${index})`,
      server,
      env: { DATABASE_SSLMODE: mode },
    }))
  ),
  // As in libpq: with a file of authorities, it is verify-ca.
  {
    name: "require with a file of authorities",
    server: STRANGERS,
    env: { DATABASE_SSLMODE: "require" },
    files: DATABASE_TRUSTING,
    says: SAYS_UNKNOWN,
  },
  ...["verify-ca", "verify-full"].flatMap((mode) =>
    [
      { name: `${mode}, good`, server: GOOD },
      { name: `${mode}, expired`, server: EXPIRED, says: SAYS_EXPIRED },
      { name: `${mode}, future`, server: FUTURE, says: SAYS_FUTURE },
      { name: `${mode}, unknown authority`, server: STRANGERS, says: SAYS_UNKNOWN },
    ].map((each) => ({
      ...each,
      env: { DATABASE_SSLMODE: mode },
      files: DATABASE_TRUSTING,
    }))
  ),
  {
    name: "verify-full, by name",
    server: GOOD,
    host: "localhost",
    env: { DATABASE_SSLMODE: "verify-full" },
    files: DATABASE_TRUSTING,
  },
  ...["localhost", "127.0.0.1"].map((host) => ({
    ...{ name: `verify-full, another host's, as ${host}`, server: OTHER_HOST, host },
    env: { DATABASE_SSLMODE: "verify-full" },
    files: DATABASE_TRUSTING,
    says: SAYS_OTHER_HOST,
  })),
  {
    name: "verify-full, not trusted by the system",
    server: GOOD,
    env: { DATABASE_SSLMODE: "verify-full" },
    says: SAYS_UNKNOWN,
  },
  // The fallback compiler's runtime checks the host name all the same: stricter, never laxer.
  ...(withoutSources ? [] : [{
    name: "verify-ca, another host's",
    server: OTHER_HOST,
    env: { DATABASE_SSLMODE: "verify-ca" },
    files: DATABASE_TRUSTING,
  }]),
];

/** A server with TLS, a database in it, and the rules of who may come in. */
async function startTlsPostgres(
  server: Certificate,
  hba: readonly string[] = [],
): Promise<{ readonly server: PostgresServer; readonly database: TestDatabase }> {
  const started = await startPostgres({
    settings: {
      ssl: "on",
      ssl_cert_file: "server.pem",
      ssl_key_file: "server.key",
      ssl_ca_file: "ca.pem",
    },
    files: { "server.pem": server.cert, "server.key": server.key, "ca.pem": authority.cert },
    hba,
  });
  const database = await started.createDatabase({ name: "sensors" });
  await database.registerSensors(SENSORS);
  return { server: started, database };
}

/** Whether the logger's connections are encrypted, by what the server says. */
async function areEncrypted(database: TestDatabase): Promise<boolean[]> {
  const rows = await database.query<{ ssl: boolean }>(
    `SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = '${LOGGER_ROLE}'`,
  );
  return rows.map(({ ssl }) => ssl);
}

Deno.test("the modes of DATABASE_SSLMODE mean what they mean in libpq", async (test) => {
  const servers = new Map<Certificate, Awaited<ReturnType<typeof startTlsPostgres>>>();
  await using resources = new AsyncDisposableStack();
  for (const server of [GOOD, EXPIRED, FUTURE, OTHER_HOST, STRANGERS]) {
    const started = await startTlsPostgres(server);
    resources.use(started.server);
    servers.set(server, started);
  }
  await using broker = await startBroker();
  for (const { name, server, host = "127.0.0.1", env = {}, files = {}, says } of DATABASE_CASES) {
    await test.step(name, async () => {
      using directory = withTemporaryDirectory();
      const { database } = servers.get(server) ?? assert.fail("no server");
      const complete = loggerEnv({ database, broker }, {
        DATABASE_HOST: host,
        ...env,
        ...filesEnv(directory.path, files),
      });
      await using logger = startLogger(complete);
      if (says === undefined) {
        await logger.waitForLine("Connected to database");
        const encrypted = await areEncrypted(database);
        assert.ok(encrypted.length > 0);
        assert.ok(encrypted.every((ssl) => ssl === (env["DATABASE_SSLMODE"] !== "disable")));
      } else {
        const line = await logger.waitForLine(/ERROR +Database .* is not available/);
        assert.match(line, says);
        const { code, stdout } = await runLogger(["check"], complete);
        assert.equal(code, 1);
        assert.match(stdout, says);
      }
      await logger.stop();
    });
  }
});

Deno.test("prefer does without TLS where the server has or wants none, require does not", async () => {
  await using broker = await startBroker();
  // The one shared by this file has none.
  const plain = await postgres.createDatabase();
  const { server, database } = await startTlsPostgres(GOOD, [
    `hostnossl all ${LOGGER_ROLE} 127.0.0.1/32 scram-sha-256`,
    `hostssl all ${LOGGER_ROLE} 127.0.0.1/32 reject`,
  ]);
  await using _server = server;
  for (const one of [plain, database]) {
    await using preferring = startLogger(loggerEnv({ database: one, broker }));
    await preferring.waitForLine("Connected to database");
    assert.ok((await areEncrypted(one)).every((ssl) => !ssl));
    await stopCleanly(preferring);
    await using requiring = startLogger(loggerEnv({ database: one, broker }, {
      DATABASE_SSLMODE: "require",
    }));
    const line = await requiring.waitForLine(/ERROR +Database .* is not available/);
    assert.match(line, one === plain ? /does not speak TLS/ : /pg_hba\.conf/);
    await stopCleanly(requiring);
  }
});

Deno.test("a database that wants a client certificate is shown one", {
  ignore: withoutSources,
}, async () => {
  using directory = withTemporaryDirectory();
  const { server, database } = await startTlsPostgres(GOOD, [
    `hostssl all ${LOGGER_ROLE} 127.0.0.1/32 cert`,
  ]);
  await using _server = server;
  await using broker = await startBroker();
  const env = { DATABASE_SSLMODE: "verify-full" };
  for (const [client, says] of [[CLIENT, undefined], [undefined, /certificate/]] as const) {
    await using logger = startLogger(loggerEnv({ database, broker }, {
      ...env,
      ...filesEnv(directory.path, {
        ...DATABASE_TRUSTING,
        ...(client && { DATABASE_CERT_FILE: client.cert, DATABASE_KEY_FILE: client.key }),
      }),
    }));
    if (says === undefined) await logger.waitForLine("Connected to database");
    else assert.match(await logger.waitForLine(/ERROR +Database .* not available/), says);
    await logger.stop();
  }
});
