/**
 * Encrypted connections to a real PostgreSQL: the modes of `DATABASE_SSLMODE`, trusted and untrusted
 * certificates, and the reasons in the log and in the output of `check`.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import type { Certificate } from "../support/certificates.ts";
import { loggerEnv, runLogger, startLogger } from "../support/logger_process.ts";
import { type PostgresOptions, type PostgresServer, startPostgres } from "../support/postgres.ts";
import { LOGGER_ROLE, type TestDatabase } from "../support/postgres_database.ts";
import { waitUntil } from "../support/poll.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import { SENSORS, stopCleanly, usePostgres } from "../support/harness.ts";
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

const postgres = usePostgres();

const DATABASE_TRUSTING = { DATABASE_CA_FILE: authority.cert };

/** The modes of libpq (PostgreSQL manual, table "SSL Mode Descriptions"), with valid and invalid certificates. */
const DATABASE_CASES: readonly Case[] = [
  ...["disable", "prefer", "require"].flatMap((mode) =>
    [GOOD, EXPIRED, FUTURE, OTHER_HOST, STRANGERS].map((server, index) => ({
      name: `${mode}, whatever the certificate (${index})`,
      server,
      env: { DATABASE_SSLMODE: mode },
    }))
  ),
  // As in libpq: with a file of authorities, `require` is `verify-ca`.
  ...["require", "verify-ca", "verify-full"].flatMap((mode) =>
    [
      { name: `${mode}, good`, server: GOOD },
      { name: `${mode}, expired`, server: EXPIRED, says: SAYS_EXPIRED },
      { name: `${mode}, future`, server: FUTURE, says: SAYS_FUTURE },
      { name: `${mode}, unknown authority`, server: STRANGERS, says: SAYS_UNKNOWN },
      { name: `${mode}, signed by itself`, server: SIGNED_BY_ITSELF, says: SAYS_ITSELF },
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
  {
    name: "verify-full, trusted by the system",
    server: GOOD,
    env: { DATABASE_SSLMODE: "verify-full" },
    files: { SSL_CERT_FILE: stranger.cert + authority.cert },
  },
  {
    name: "verify-full, trusted by the system only",
    server: GOOD,
    env: { DATABASE_SSLMODE: "verify-full" },
    files: { SSL_CERT_FILE: authority.cert, DATABASE_CA_FILE: stranger.cert },
    says: SAYS_UNKNOWN,
  },
  ...["require", "verify-ca"].map((mode) => ({
    name: `${mode} with a file of authorities, another host's`,
    server: OTHER_HOST,
    env: { DATABASE_SSLMODE: mode },
    files: DATABASE_TRUSTING,
  })),
];

/** A server with TLS, a database in it, and the rules for its clients. */
async function startTlsPostgres(
  server: Certificate,
  { hba = [], settings }: Pick<PostgresOptions, "hba" | "settings"> = {},
): Promise<{ readonly server: PostgresServer; readonly database: TestDatabase }> {
  const started = await startPostgres({
    settings: {
      ssl: "on",
      ssl_cert_file: "server.pem",
      ssl_key_file: "server.key",
      ssl_ca_file: "ca.pem",
      ...settings,
    },
    files: { "server.pem": server.cert, "server.key": server.key, "ca.pem": authority.cert },
    hba,
  });
  const database = await started.createDatabase({ name: "sensors" });
  await database.registerSensors(SENSORS);
  return { server: started, database };
}

/** Whether the logger's connections are encrypted, according to the server. */
async function areEncrypted(database: TestDatabase): Promise<boolean[]> {
  const rows = await database.query<{ ssl: boolean }>(
    `SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = '${LOGGER_ROLE}'`,
  );
  return rows.map(({ ssl }) => ssl);
}

Deno.test("the modes of DATABASE_SSLMODE mean what they mean in libpq", async (test) => {
  const servers = new Map<Certificate, Awaited<ReturnType<typeof startTlsPostgres>>>();
  await using resources = new AsyncDisposableStack();
  for (const server of new Set(DATABASE_CASES.map(({ server }) => server))) {
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
        // `check` uses the same texts, so one mode is enough.
        if (env["DATABASE_SSLMODE"] === "verify-full") {
          const { code, stdout } = await runLogger(["check"], complete);
          assert.equal(code, 1);
          assert.match(stdout, says);
        }
      }
      await logger.stop();
    });
  }
});

Deno.test("verify-ca without a file of authorities is refused, as in libpq", async () => {
  await using broker = await startBroker();
  const database = await postgres.createDatabase();
  const env = loggerEnv({ database, broker }, { DATABASE_SSLMODE: "verify-ca" });
  const { code, stderr } = await runLogger(["check"], env);
  assert.equal(code, 78, stderr);
  assert.match(stderr, /^DATABASE_SSLMODE: verify-ca requires DATABASE_CA_FILE/m);
});

Deno.test("prefer works without TLS if the server does not offer or allow it, require does not", async () => {
  await using broker = await startBroker();
  // The shared server of this file has no TLS.
  const plain = await postgres.createDatabase();
  const { server, database } = await startTlsPostgres(GOOD, {
    hba: [
      `hostnossl all ${LOGGER_ROLE} 127.0.0.1/32 scram-sha-256`,
      `hostssl all ${LOGGER_ROLE} 127.0.0.1/32 reject`,
    ],
  });
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

/** Settings of a server from a time before TLS 1.2. */
const OLD_TLS = { ssl_min_protocol_version: "TLSv1", ssl_max_protocol_version: "TLSv1.1" };

/** A handshake that fails, and the reason that is logged if TLS is required. */
const BROKEN_HANDSHAKES = [
  {
    name: "with no TLS version in common",
    settings: OLD_TLS,
    client: undefined,
    says: /it has no TLS version or cipher in common with the logger/,
  },
  ...[STRANGE_CLIENT, EXPIRED_CLIENT].map((client, index) => ({
    name: `that does not accept the client certificate (${index})`,
    settings: {},
    client,
    says: /it does not accept the client certificate/,
  })),
];

for (const { name, settings, client, says } of BROKEN_HANDSHAKES) {
  Deno.test(`prefer connects without TLS to a server ${name}, require logs the reason`, async () => {
    using directory = withTemporaryDirectory();
    await using broker = await startBroker();
    const { server, database } = await startTlsPostgres(GOOD, { settings });
    await using _server = server;
    const files = filesEnv(
      directory.path,
      client === undefined
        ? {}
        : { DATABASE_CERT_FILE: client.cert, DATABASE_KEY_FILE: client.key },
    );
    await using preferring = startLogger(loggerEnv({ database, broker }, files));
    await preferring.waitForLine("Connected to database");
    assert.ok((await areEncrypted(database)).every((ssl) => !ssl));
    // The server offers encryption, and the logger has tried it.
    await waitUntil(() => server.logLines.some((line) => line.includes("could not accept SSL")), {
      what: "the server to log the handshake",
    });
    await stopCleanly(preferring);
    const env = { DATABASE_SSLMODE: "require", ...files };
    await using requiring = startLogger(loggerEnv({ database, broker }, env));
    const line = await requiring.waitForLine(/ERROR +Database .* is not available/);
    assert.match(line, says);
    await stopCleanly(requiring);
  });
}

Deno.test("if prefer can connect neither with TLS nor without, both reasons are logged", async () => {
  await using broker = await startBroker();
  const { server, database } = await startTlsPostgres(GOOD, {
    settings: OLD_TLS,
    hba: [`hostnossl all ${LOGGER_ROLE} 127.0.0.1/32 reject`],
  });
  await using _server = server;
  await using logger = startLogger(loggerEnv({ database, broker }));
  const line = await logger.waitForLine(/ERROR +Database .* is not available/);
  assert.match(line, /pg_hba\.conf.*; with TLS: it has no TLS version or cipher in common/);
  await stopCleanly(logger);
});

const CLIENT_CASES = [
  { name: "the right one", client: CLIENT },
  { name: "none", says: /certificate/ },
  {
    name: "an unknown authority's",
    client: STRANGE_CLIENT,
    says: /it does not accept the client certificate/,
  },
  {
    name: "an expired one",
    client: EXPIRED_CLIENT,
    says: /it does not accept the client certificate/,
  },
];

Deno.test("a client certificate is presented to a database that requires one", async (test) => {
  const { server, database } = await startTlsPostgres(GOOD, {
    hba: [`hostssl all ${LOGGER_ROLE} 127.0.0.1/32 cert`],
  });
  await using _server = server;
  await using broker = await startBroker();
  for (const { name, client, says } of CLIENT_CASES) {
    await test.step(name, async () => {
      using directory = withTemporaryDirectory();
      const env = loggerEnv({ database, broker }, {
        DATABASE_SSLMODE: "verify-full",
        ...filesEnv(directory.path, {
          ...DATABASE_TRUSTING,
          ...(client && { DATABASE_CERT_FILE: client.cert, DATABASE_KEY_FILE: client.key }),
        }),
      });
      await using logger = startLogger(env);
      if (says === undefined) await logger.waitForLine("Connected to database");
      else assert.match(await logger.waitForLine(/ERROR +Database .* not available/), says);
      await logger.stop();
    });
  }
});
