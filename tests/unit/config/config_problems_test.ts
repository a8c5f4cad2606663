/**
 * The problems of a configuration: all at once, one line each, and never a secret.
 */
import assert from "node:assert/strict";
import { parseConfig } from "../../../lib/config/config.ts";
import { ConfigError } from "../../../lib/config/settings.ts";
import { OTHER_NAMES, SETTINGS } from "../../../lib/config/setting_names.ts";
import { parse, readFile, refusal } from "../../support/parsed_config.ts";

Deno.test("an unknown log level causes a warning and does not prevent the start", () => {
  for (const word of ["LOUD", "15", "constructor", "__proto__"]) {
    const { log, warnings } = parse({ APPLICATION_LOG_LEVEL: word });
    assert.equal(log.level, "INFO");
    assert.equal(warnings.length, 1);
    assert.ok(warnings[0]?.includes(`APPLICATION_LOG_LEVEL`) && warnings[0].includes(`'${word}'`));
  }
});

Deno.test("a malformed value is refused in one line with variable, rule and value", () => {
  const port = "must be an integer from 1 to 65535";
  const host = "must be a host name or address, optionally with ':port'";
  const bytes = "must be a number of bytes from 1M to 16T";
  const hostPort = "must have a port from 1 to 65535, or none";
  const url = "must be a host name or address, not a URL";
  const ownHost = "must be an address or name of this host, without a port (see HTTP_PORT)";
  const cases: [string, string, string][] = [
    ["DATABASE_HOST", "db lab", host],
    ["DATABASE_HOST", "[db]:1", host],
    ["DATABASE_HOST", ":5432", host],
    ["DATABASE_HOST", "db:", hostPort],
    ["DATABASE_HOST", "db:0", hostPort],
    ["DATABASE_HOST", "db:65536", hostPort],
    ["DATABASE_HOST", "db:1:2", hostPort],
    ["DATABASE_PORT", "0", port],
    ["DATABASE_PORT", "65536", port],
    ["DATABASE_PORT", "5432.0", port],
    ["DATABASE_PORT", "-1", port],
    ["DATABASE_PORT", "0x10", port],
    ["DATABASE_SSLMODE", "allow", "must be one of disable, prefer, require, verify-ca, "],
    ["DATABASE_CONNECTIONS", "0", "must be an integer from 1 to 64"],
    ["DATABASE_CONNECTIONS", "two", "must be an integer from 1 to 64"],
    ["MQTT_HOST", "[::1", host],
    ["DATABASE_HOST", "/run/postgresql", host],
    ["DATABASE_HOST", "postgres://db", url],
    ["DATABASE_HOST", "postgres://db:5432/sensors", url],
    ["MQTT_HOST", "tcp://b", url],
    ["MQTT_HOST", "mqtts://b:8883", url],
    ["MQTT_HOST", "a,tcp://b", url],
    ["MQTT_HOST", "broker:1883x", hostPort],
    ["MQTT_PORT", "70000", "must be an integer from 0 to 65535"],
    ["MQTT_QOS", "3", "must be one of 0, 1, 2"],
    ["MQTT_QOS", "1.0", "must be one of 0, 1, 2"],
    ["MQTT_PROTOCOL_VERSION", "3", "must be one of 3.1.1, 4, 5"],
    ["MQTT_SHARED_GROUP", "a/b", "must not contain '/', '+' or '#'"],
    ["MQTT_SHARED_GROUP", "a+", "must not contain '/', '+' or '#'"],
    ["MQTT_TLS", "maybe", "must be one of "],
    ["MQTT_TOPIC", "sensors/#/x", "must be topic filters"],
    ["MQTT_TOPIC", "sensors#", "must be topic filters"],
    ["MQTT_TOPIC", "sensors/a+", "must be topic filters"],
    ["APPLICATION_LOG_FORMAT", "xml", "must be one of json, text"],
    ["HTTP_PORT", "http", port],
    ["HTTP_HOST", "127.0.0.1:8000", ownHost],
    ["HTTP_HOST", "[::1]:8000", ownHost],
    ["HTTP_HOST", "[db]", ownHost],
    ["HTTP_HOST", "localhost:", ownHost],
    ["HTTP_HOST", "*", ownHost],
    ["HTTP_HOST", "a b", ownHost],
    ["HTTP_HOST", "a..b", ownHost],
    ["HTTP_HOST", "0.0.0.0/0", ownHost],
    ["HTTP_HOST", "x".repeat(64), ownHost],
    ["HTTP_HOST", "http://localhost:8000", url],
    ["SPOOL_MAX_BYTES", "1048575", bytes],
    ["SPOOL_MAX_BYTES", "1023K", bytes],
    ["SPOOL_MAX_BYTES", "0", bytes],
    ["SPOOL_MAX_BYTES", "-5M", bytes],
    ["SPOOL_MAX_BYTES", "1.5G", bytes],
    ["SPOOL_MAX_BYTES", "17T", bytes],
    ["SPOOL_MAX_BYTES", "2P", bytes],
    ["SPOOL_MAX_BYTES", "G", bytes],
    ["SPOOL_MAX_BYTES", "2G free", bytes],
  ];
  for (const [variable, value, rule] of cases) {
    const [line = "", ...more] = refusal({ [variable]: value });
    assert.ok(line.startsWith(`${variable}: ${rule}`), line);
    assert.ok(line.endsWith(`, received '${value}'`), line);
    assert.deepEqual(more, []);
  }
  assert.match(refusal({ MQTT_TOPIC: "a,,b" }).join(), /^MQTT_TOPIC: .*, received ''$/);
  assert.match(refusal({ MQTT_HOST: "a,," }).join("\n"), /^(MQTT_HOST: .*, received ''\n?){2}$/);
});

Deno.test("a size limit without a spool causes a warning", () => {
  const { spool, warnings } = parse({ SPOOL_MAX_BYTES: "2G" });
  assert.equal(spool, undefined);
  assert.deepEqual(warnings, ["SPOOL_MAX_BYTES has no effect without SPOOL_DIRECTORY."]);
  assert.deepEqual(refusal({ SPOOL_MAX_BYTES: "many" }).length, 1);
});

Deno.test("a host without a port for the status page causes a warning, and is checked", () => {
  for (const HTTP_HOST of ["0.0.0.0", "::"]) {
    const { http, warnings } = parse({ HTTP_HOST });
    assert.equal(http, undefined);
    assert.deepEqual(warnings, ["HTTP_HOST has no effect without HTTP_PORT."]);
  }
  assert.deepEqual(parse({ HTTP_HOST: "::", HTTP_PORT: "8080" }).warnings, []);
  const lines = refusal({ HTTP_HOST: "localhost:80", HTTP_PORT: "x" });
  assert.deepEqual(lines.map((line) => line.split(":")[0]), ["HTTP_HOST", "HTTP_PORT"]);
  const [line, ...more] = refusal({ HTTP_HOST: "localhost", HTTP_PORT: "x" });
  assert.match(line ?? "", /^HTTP_PORT: .*, received 'x'$/);
  assert.deepEqual(more, []);
});

Deno.test("all problems are reported at once", () => {
  const env = {
    DATABASE_PORT: "x",
    MQTT_QOS: "7",
    MQTT_TOPIC: "a#,b/#/c",
    MQTT_CLIENT_PASSWORD: "p",
  };
  assert.throws(() => parseConfig(env, readFile), (error) => {
    assert.ok(error instanceof ConfigError);
    const variables = error.problems.map(({ variable }) => variable);
    assert.deepEqual(variables.toSorted(), [
      "DATABASE_HOST",
      "DATABASE_PASSWORD",
      "DATABASE_PORT",
      "DATABASE_USER",
      "MQTT_CLIENT_USER",
      "MQTT_HOST",
      "MQTT_QOS",
      "MQTT_TOPIC",
      "MQTT_TOPIC",
    ]);
    assert.equal(error.message.split("\n").length, 9);
    assert.match(error.message, /^DATABASE_USER: must be set \(or DATABASE_USER_FILE .*\)$/m);
    return true;
  });
});

Deno.test("an unreadable file is named once, with the system's reason", () => {
  for (const name of ["DATABASE_USER", "DATABASE_PASSWORD"]) {
    assert.deepEqual(refusal({ [name]: undefined, [`${name}_FILE`]: "/gone" }), [
      `${name}_FILE: names a file that cannot be read (No such file or directory), received '/gone'`,
    ]);
  }
  const [line] = refusal({ DATABASE_CA_FILE: "/gone/ca.pem" });
  assert.match(line ?? "", /^DATABASE_CA_FILE: .*No such file or directory.*'\/gone\/ca.pem'$/);
  assert.deepEqual(refusal({ DATABASE_PASSWORD_FILE: "/blank" }), [
    "DATABASE_PASSWORD_FILE: names an empty file, received '/blank'",
  ]);
  const login = refusal({ MQTT_CLIENT_USER_FILE: "/gone", MQTT_CLIENT_PASSWORD: "p" });
  assert.deepEqual(login.map((line) => line.split(":")[0]), ["MQTT_CLIENT_USER_FILE"]);
  for (const tls of ["maybe", "off"]) {
    const lines = refusal({ MQTT_TLS: tls, MQTT_CA_FILE: "/gone" });
    assert.equal(lines.length, 1, lines.join("; "));
  }
});

Deno.test("no message and no warning contains a secret", () => {
  const secret = "s3cr3t";
  const env = {
    DATABASE_HOST: "bad host",
    DATABASE_USER: secret,
    DATABASE_PASSWORD: secret,
    MQTT_CLIENT_PASSWORD: secret,
    DATABASE_PASSWROD: secret,
    MQTT_QOS: "9",
  };
  assert.doesNotMatch(refusal(env).join("\n"), new RegExp(secret));
  const { warnings } = parse({ DATABASE_PASSWROD: secret, APPLICATION_LOG_LEVEL: "x" });
  assert.equal(warnings.length, 2);
  assert.doesNotMatch(warnings.join("\n"), new RegExp(secret));
});

Deno.test("a value with line breaks stays on one line, and the login of a URL is hidden", () => {
  const [forged = "", ...more] = refusal({ MQTT_QOS: "3\nMQTT_HOST: fine" });
  assert.equal(forged, "MQTT_QOS: must be one of 0, 1, 2, received '3 MQTT_HOST: fine'");
  assert.deepEqual(more, []);
  const [url = ""] = refusal({ MQTT_HOST: "mqtt://user:s3cr3t@broker:1883" });
  assert.match(url, /^MQTT_HOST: .*'mqtt:\/\/…@broker:1883'$/);
  const logins: [string, string, string][] = [
    ["MQTT_HOST", "user:s3cr3t@broker", "…@broker"],
    ["MQTT_HOST", "a,user:s3cr3t@,s3cr3t@b,c", "…@b,c"],
    ["MQTT_HOST", "tcp://user:s3cr3t,s3cr3t@b,c", "tcp://…@b,c"],
    ["DATABASE_HOST", "user:s3cr3t@s3cr3t@db:5432", "…@db:5432"],
    ["DATABASE_HOST", "postgres://db/x?user=u&password=s3cr3t", "…?user=u&password=…"],
    ["DATABASE_HOST", "host=db PASSWORD='s3cr3t s3cr3t'", "host=db PASSWORD=…"],
    ["HTTP_HOST", "http://user:s3cr3t@localhost", "http://…@localhost"],
  ];
  for (const [variable, value, shown] of logins) {
    const [line = "", ...more] = refusal({ [variable]: value });
    assert.match(line, new RegExp(`^${variable}: must be an? .*, received '`));
    assert.ok(line.endsWith(`${shown.replace("…?", "postgres://db/x?")}'`), line);
    assert.doesNotMatch(line, /s3cr3t/);
    assert.deepEqual(more, []);
  }
});

Deno.test("a misspelled variable causes a warning, variables of other programs do not", () => {
  const foreign = { PATH: "/bin", HOME: "/root", HTTP_PROXY: "x", PGHOST: "db", LANG: "C" };
  const { warnings } = parse({
    ...foreign,
    MQTT_CLIENTID: "x",
    DATABSE_NAME: "y",
    MQTT_TOPICS: "z",
    SPOOL_DIRECTROY: "/spool",
  });
  assert.deepEqual(warnings.map((line) => line.replace(/ is .* mean /, " > ")), [
    "MQTT_CLIENTID > MQTT_CLIENT_ID?",
    "DATABSE_NAME > DATABASE_NAME?",
    "MQTT_TOPICS > MQTT_TOPIC?",
    "SPOOL_DIRECTROY > SPOOL_DIRECTORY?",
  ]);
});

Deno.test("names of other programs are recognized, and variables of Kubernetes are ignored", () => {
  const guesses = (env: Record<string, string>): string[] =>
    parse(env).warnings.map((line) => line.replace(/ is .* mean /, " > "));
  assert.deepEqual(
    guesses({
      LOG_LEVEL: "DEBUG",
      log_format: "json",
      MQTT_USERNAME: "u",
      MQTT_PASSWORD_FILE: "/p",
      SPOOL_DIR: "/spool",
      DB_NAME: "x",
    }),
    [
      "LOG_LEVEL > APPLICATION_LOG_LEVEL?",
      "log_format > APPLICATION_LOG_FORMAT?",
      "MQTT_USERNAME > MQTT_CLIENT_USER?",
      "MQTT_PASSWORD_FILE > MQTT_CLIENT_PASSWORD_FILE?",
      "SPOOL_DIR > SPOOL_DIRECTORY?",
      "DB_NAME > DATABASE_NAME?",
    ],
  );
  // The setting is set, so a name without a prefix of ours belongs to another program.
  const beside = { LOG_LEVEL: "x", APPLICATION_LOG_LEVEL: "INFO", DB_PASSWORD: "x", DB_HOST: "x" };
  assert.deepEqual(guesses(beside), []);
  assert.deepEqual(guesses({ MQTT_USER: "x", MQTT_CLIENT_USER: "y" }), [
    "MQTT_USER > MQTT_CLIENT_USER?",
  ]);
  assert.deepEqual(parse({ MQTT_HOST_FILE: "x" }).warnings, [
    "MQTT_HOST_FILE is not a setting and is ignored.",
  ]);
  const links = {
    DB_PORT: "tcp://10.0.0.2:5432",
    DB_PORT_5432_TCP_ADDR: "10.0.0.2",
    DB_SERVICE_HOST: "10.0.0.2",
    MQTT_BROKER_PORT: "tcp://10.0.0.3:1883",
  };
  assert.deepEqual(parse(links).warnings, []);
  for (const [name, setting] of Object.entries(OTHER_NAMES)) {
    assert.ok(SETTINGS.includes(setting) && !SETTINGS.includes(name), name);
  }
});

Deno.test("a missing setting is reported together with the name used in its place", () => {
  assert.deepEqual(refusal({ DATABASE_HOST: undefined, DB_HOST: "db" }), [
    "DATABASE_HOST: must be set",
    "DB_HOST is not a setting and is ignored. Did you mean DATABASE_HOST?",
  ]);
});
