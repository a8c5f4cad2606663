/**
 * What is wrong with a configuration: all of it at once, one line each, and never a secret.
 */
import assert from "node:assert/strict";
import { parseConfig } from "../lib/config.ts";
import { ConfigError } from "../lib/settings.ts";
import { parse, readFile, refusal } from "./parsed_config.ts";

Deno.test("an unknown log level does not keep the logger from starting, but is warned about", () => {
  for (const word of ["LOUD", "15", "constructor", "__proto__"]) {
    const { log, warnings } = parse({ APPLICATION_LOG_LEVEL: word });
    assert.equal(log.level, "INFO");
    assert.equal(warnings.length, 1);
    assert.ok(warnings[0]?.includes(`APPLICATION_LOG_LEVEL`) && warnings[0].includes(`'${word}'`));
  }
});

Deno.test("malformed values are refused, each in one line with variable, rule and value", () => {
  const port = "must be an integer from 1 to 65535";
  const host = "must be a host name or address with or without ':port'";
  const bytes = "must be a number of bytes from 1M to 16T";
  const hostPort = "must carry a port from 1 to 65535, or none";
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
    ["MQTT_HOST", "user@broker", host],
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

Deno.test("a limit for a spool that is not there is warned about", () => {
  const { spool, warnings } = parse({ SPOOL_MAX_BYTES: "2G" });
  assert.equal(spool, undefined);
  assert.deepEqual(warnings, ["SPOOL_MAX_BYTES has no effect without SPOOL_DIRECTORY."]);
  assert.deepEqual(refusal({ SPOOL_MAX_BYTES: "many" }).length, 1);
});

Deno.test("everything that is wrong is said at once", () => {
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

Deno.test("an unreadable file is named with the system's reason, and nothing is said twice", () => {
  for (const name of ["DATABASE_USER", "DATABASE_PASSWORD"]) {
    assert.deepEqual(refusal({ [name]: undefined, [`${name}_FILE`]: "/gone" }), [
      `${name}_FILE: names a file that cannot be read (No such file or directory), received '/gone'`,
    ]);
  }
  const [line] = refusal({ DATABASE_CA_FILE: "/gone/ca.pem" });
  assert.match(line ?? "", /^DATABASE_CA_FILE: .*No such file or directory.*'\/gone\/ca.pem'$/);
  assert.deepEqual(refusal({ DATABASE_PASSWORD_FILE: "/blank" }), [
    "DATABASE_PASSWORD_FILE: names a file that is empty, received '/blank'",
  ]);
  const login = refusal({ MQTT_CLIENT_USER_FILE: "/gone", MQTT_CLIENT_PASSWORD: "p" });
  assert.deepEqual(login.map((line) => line.split(":")[0]), ["MQTT_CLIENT_USER_FILE"]);
  for (const tls of ["maybe", "off"]) {
    const lines = refusal({ MQTT_TLS: tls, MQTT_CA_FILE: "/gone" });
    assert.equal(lines.length, 1, lines.join("; "));
  }
});

Deno.test("secrets appear in no message and no warning", () => {
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

Deno.test("a value with line ends stays on its line, and a URL does not give its login away", () => {
  const [forged = "", ...more] = refusal({ MQTT_QOS: "3\nMQTT_HOST: fine" });
  assert.equal(forged, "MQTT_QOS: must be one of 0, 1, 2, received '3 MQTT_HOST: fine'");
  assert.deepEqual(more, []);
  const [url = ""] = refusal({ MQTT_HOST: "mqtt://user:s3cr3t@broker:1883" });
  assert.match(url, /^MQTT_HOST: .*'mqtt:\/\/…@broker:1883'$/);
});

Deno.test("a misspelt variable is warned about, other programs' variables are not", () => {
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
