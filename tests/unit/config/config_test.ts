/**
 * The configuration: the default of each variable, and the accepted forms of its value.
 */
import assert from "node:assert/strict";
import {
  parseDatabaseConfig,
  parseHttpConfig,
  parseSpoolConfig,
  parseStorageConfig,
} from "../../../lib/config/config.ts";
import { describeEndpoint } from "../../../lib/common/endpoint.ts";
import { ConfigError, type Environment } from "../../../lib/config/settings.ts";
import { DEFAULT_TUNING } from "../../../lib/config/tuning.ts";
import { MINIMAL, parse, readFile, refusal } from "../../support/parsed_config.ts";

function hosts(env: Environment): string[] {
  return parse(env).mqtt.endpoints.map(describeEndpoint);
}

Deno.test("four variables are required, all others have the documented default", () => {
  assert.deepEqual(parse(), {
    database: {
      endpoint: { host: "db", port: 5432 },
      user: "kraken-user",
      password: "very secret",
      name: "sensors",
      sslMode: "prefer",
      ca: undefined,
      cert: undefined,
      key: undefined,
      connections: 2,
      tuning: DEFAULT_TUNING,
    },
    mqtt: {
      endpoints: [{ host: "mosquitto", port: 1883 }],
      clientId: undefined,
      user: undefined,
      password: undefined,
      filters: ["sensors/#"],
      qos: 2,
      protocolVersion: undefined,
      sharedGroup: undefined,
      tls: undefined,
      tuning: DEFAULT_TUNING,
    },
    log: { level: "INFO", format: "text" },
    spool: undefined,
    http: undefined,
    warnings: [],
    tuning: DEFAULT_TUNING,
  });
});

Deno.test("an empty variable counts as not set", () => {
  const names = ["DATABASE_PORT", "DATABASE_NAME", "MQTT_QOS", "MQTT_TLS", "HTTP_PORT"];
  const empty = Object.fromEntries(names.map((name) => [name, ""]));
  assert.deepEqual(parse({ ...empty, DATABASE_USER_FILE: "" }), parse());
  assert.match(refusal({ MQTT_HOST: "" }).join(), /^MQTT_HOST: must be set$/);
});

Deno.test("the database settings come from their variables", () => {
  const { database } = parse({
    DATABASE_HOST: "db.lab",
    DATABASE_PORT: "5433",
    DATABASE_NAME: "physics",
    DATABASE_SSLMODE: "Verify-Full",
    DATABASE_CA_FILE: "/ca.pem",
    DATABASE_CONNECTIONS: "4",
  });
  assert.deepEqual(database.endpoint, { host: "db.lab", port: 5433 });
  assert.equal(database.name, "physics");
  assert.equal(database.sslMode, "verify-full");
  assert.equal(database.ca, readFile("/ca.pem"));
  assert.equal(database.connections, 4);
  const withPort = parse({ DATABASE_HOST: "db.lab:6000", DATABASE_PORT: "5433" });
  assert.deepEqual(withPort.database.endpoint, { host: "db.lab", port: 6000 });
  for (const mode of ["disable", "prefer", "require", "verify-ca", "verify-full"]) {
    const { database } = parse({ DATABASE_SSLMODE: mode, DATABASE_CA_FILE: "/ca.pem" });
    assert.equal(database.sslMode, mode);
    if (mode !== "verify-ca") {
      assert.equal(parse({ DATABASE_SSLMODE: mode }).database.ca, undefined);
    }
  }
  assert.deepEqual(refusal({ DATABASE_SSLMODE: "verify-ca" }), [
    "DATABASE_SSLMODE: verify-ca requires DATABASE_CA_FILE (verify-full works with the system's)",
  ]);
});

Deno.test("hosts may be names, addresses and lists, and port 0 means the default", () => {
  const cases: [Environment, ...string[]][] = [
    [{ MQTT_HOST: "a" }, "'a:1883'"],
    [{ MQTT_HOST: "a:1884, 10.0.0.7 ,b" }, "'a:1884'", "'10.0.0.7:1883'", "'b:1883'"],
    [{ MQTT_HOST: "a,b:1", MQTT_PORT: "7" }, "'a:7'", "'b:1'"],
    [{ MQTT_HOST: "a:0,b", MQTT_PORT: "0" }, "'a:1883'", "'b:1883'"],
    [{ MQTT_HOST: "a:0,b", MQTT_PORT: "0", MQTT_TLS: "on" }, "'a:8883'", "'b:8883'"],
    [{ MQTT_HOST: "[::1]:1884" }, "'[::1]:1884'"],
    [{ MQTT_HOST: "[fe80::1]" }, "'[fe80::1]:1883'"],
    [{ MQTT_HOST: "::1,2001:db8::2" }, "'[::1]:1883'", "'[2001:db8::2]:1883'"],
  ];
  for (const [env, ...expected] of cases) {
    assert.deepEqual(hosts(env), expected, JSON.stringify(env));
  }
  assert.deepEqual(parse({ MQTT_HOST: "[::1]:1" }).mqtt.endpoints, [{ host: "::1", port: 1 }]);
  const { endpoint } = parse({ DATABASE_HOST: "[::1]:5433" }).database;
  assert.deepEqual(endpoint, { host: "::1", port: 5433 });
});

Deno.test("the broker settings come from their variables", () => {
  const { mqtt } = parse({
    MQTT_CLIENT_ID: "logger",
    MQTT_CLIENT_USER: "u",
    MQTT_CLIENT_PASSWORD: "p",
    MQTT_TOPIC: "sensors/+/a/#, lab ,+/x",
    MQTT_QOS: "1",
    MQTT_PROTOCOL_VERSION: "4",
    MQTT_SHARED_GROUP: "loggers",
  });
  assert.deepEqual(mqtt, {
    ...mqtt,
    clientId: "logger",
    user: "u",
    password: "p",
    filters: ["sensors/+/a/#", "lab", "+/x"],
    qos: 1,
    protocolVersion: 4,
    sharedGroup: "loggers",
  });
  for (const qos of [0, 1, 2]) assert.equal(parse({ MQTT_QOS: `${qos}` }).mqtt.qos, qos);
  assert.equal(parse({ MQTT_PROTOCOL_VERSION: "5" }).mqtt.protocolVersion, 5);
  const shared = parse({ MQTT_TOPIC: "$share/g/sensors/#" });
  assert.deepEqual(shared.mqtt.filters, ["$share/g/sensors/#"]);
});

Deno.test("TLS is enabled by a word, and its certificates come from files", () => {
  for (const word of ["on", "ON", "true", "yes", "1"]) {
    const { tls } = parse({ MQTT_TLS: word }).mqtt;
    assert.deepEqual(tls, { ca: undefined, cert: undefined, key: undefined }, word);
  }
  for (const word of ["off", "False", "no", "0"]) {
    assert.equal(parse({ MQTT_TLS: word }).mqtt.tls, undefined, word);
  }
  const files = {
    MQTT_CA_FILE: "/ca.pem",
    MQTT_CERT_FILE: "/cert.pem",
    MQTT_KEY_FILE: "/key.pem",
  };
  const { tls } = parse({ MQTT_TLS: "on", ...files }).mqtt;
  assert.deepEqual(tls, {
    ca: readFile("/ca.pem"),
    cert: readFile("/cert.pem"),
    key: readFile("/key.pem"),
  });
  const { database } = parse({
    DATABASE_CERT_FILE: "/cert.pem",
    DATABASE_KEY_FILE: "/key.pem",
  });
  assert.deepEqual(
    [database.cert, database.key],
    [readFile("/cert.pem"), readFile("/key.pem")],
  );
  const wrong = { MQTT_TLS: "on", MQTT_CA_FILE: "/key.pem", DATABASE_CERT_FILE: "/cert.pem" };
  assert.deepEqual(refusal({ ...wrong, DATABASE_KEY_FILE: "/encrypted.pem" }), [
    "DATABASE_KEY_FILE: must name an unencrypted key, received '/encrypted.pem'",
    "MQTT_CA_FILE: must name a PEM file with certificates, received '/key.pem'",
  ]);
  const broken = { MQTT_TLS: "on", MQTT_CA_FILE: "/half-of-ca.pem", MQTT_CERT_FILE: "/cert.pem" };
  assert.deepEqual(refusal({ ...broken, MQTT_KEY_FILE: "/half-of-key.pem" }), [
    "MQTT_CA_FILE: must name a PEM file with valid certificates: certificate 1 of 1 cannot be " +
    "parsed, received '/half-of-ca.pem'",
    "MQTT_KEY_FILE: must name a PEM file with a valid private key: the key cannot be parsed, " +
    "received '/half-of-key.pem'",
  ]);
  const unlike = { DATABASE_CERT_FILE: "/cert.pem", DATABASE_KEY_FILE: "/key-of-another.pem" };
  assert.deepEqual(refusal(unlike), [
    "DATABASE_KEY_FILE: must name the key that belongs to the certificate in " +
    "DATABASE_CERT_FILE, received '/key-of-another.pem'",
  ]);
  assert.match(refusal({ MQTT_TLS: "on", MQTT_CERT_FILE: "/cert.pem" }).join(), /^MQTT_KEY_FILE: /);
  assert.match(refusal({ MQTT_TLS: "on", MQTT_KEY_FILE: "/key.pem" }).join(), /^MQTT_CERT_FILE: /);
  const unused = refusal(files).map((line) => line.replace(/,.*/, ""));
  assert.deepEqual(unused, [
    "MQTT_CA_FILE: has no effect without MQTT_TLS=on",
    "MQTT_CERT_FILE: has no effect without MQTT_TLS=on",
    "MQTT_KEY_FILE: has no effect without MQTT_TLS=on",
  ]);
});

Deno.test("log level, log format and status page come from their variables", () => {
  const levels = {
    DEBUG: ["DEBUG", "debug", "10"],
    INFO: ["INFO", "Info", "20"],
    WARNING: ["WARNING", "warn", "30"],
    ERROR: ["ERROR", "40"],
    CRITICAL: ["CRITICAL", "Fatal", "50"],
  };
  for (const [level, words] of Object.entries(levels)) {
    for (const word of words) {
      const { log, warnings } = parse({ APPLICATION_LOG_LEVEL: word });
      assert.deepEqual([log.level, warnings], [level, []], word);
    }
  }
  assert.equal(parse({ APPLICATION_LOG_FORMAT: "JSON" }).log.format, "json");
  const http = { "": "127.0.0.1", "0.0.0.0": "0.0.0.0", "[::1]": "::1", "::": "::" };
  const names = { localhost: "localhost", "lab-1.example.org.": "lab-1.example.org." };
  for (const [HTTP_HOST, host] of Object.entries({ ...http, ...names })) {
    const env = { HTTP_HOST, HTTP_PORT: "8080" };
    assert.deepEqual(parse(env).http, { host, port: 8080 });
    assert.deepEqual(parseHttpConfig(env, readFile), { host, port: 8080 });
  }
});

Deno.test("the spool directory is the configured one, or that of systemd", () => {
  const directory = (env: Environment): string | undefined => parse(env).spool?.directory;
  assert.equal(directory({ SPOOL_DIRECTORY: "/spool" }), "/spool");
  assert.equal(directory({ STATE_DIRECTORY: "/var/lib/kraken" }), "/var/lib/kraken");
  assert.equal(directory({ STATE_DIRECTORY: "/a:/b" }), "/a");
  assert.equal(directory({ STATE_DIRECTORY: "/a", SPOOL_DIRECTORY: "/spool" }), "/spool");
  assert.equal(directory({ STATE_DIRECTORY: "/a", SPOOL_DIRECTORY: "" }), "/a");
  assert.equal(directory({ STATE_DIRECTORY: "", SPOOL_DIRECTORY: "" }), undefined);
  assert.deepEqual(parse({ SPOOL_DIRECTORY: "/spool" }).warnings, []);
});

Deno.test("the size of the spool is a number of bytes, with or without a unit", () => {
  const maxBytes = (text: string): number | undefined =>
    parse({ SPOOL_DIRECTORY: "/spool", SPOOL_MAX_BYTES: text }).spool?.maxBytes;
  const sizes: [string, number][] = [
    ["", 2 ** 30],
    ["1048576", 2 ** 20],
    ["2000000", 2_000_000],
    ["1024K", 2 ** 20],
    ["500M", 500 * 2 ** 20],
    ["500 MB", 500 * 2 ** 20],
    ["500MiB", 500 * 2 ** 20],
    ["2g", 2 ** 31],
    [" 3 GiB ", 3 * 2 ** 30],
    ["16T", 2 ** 44],
    ["5000000B", 5_000_000],
  ];
  for (const [text, bytes] of sizes) assert.equal(maxBytes(text), bytes, text);
});

Deno.test("the file of a secret takes precedence over its variable; only trailing line breaks are removed", () => {
  const { database, mqtt } = parse({
    DATABASE_USER_FILE: "/user",
    DATABASE_PASSWORD_FILE: "/password",
    MQTT_CLIENT_USER: "env-user",
    MQTT_CLIENT_USER_FILE: "/user",
    MQTT_CLIENT_PASSWORD_FILE: "/password",
  });
  assert.equal(database.user, "file-user");
  assert.equal(database.password, " two words ");
  assert.equal(mqtt.user, "file-user");
  assert.equal(mqtt.password, " two words ");
});

Deno.test("the configuration is deeply frozen", () => {
  const config = parse({ MQTT_TLS: "on", SPOOL_DIRECTORY: "/spool" });
  const { database, mqtt, spool } = config;
  const frozen = [config, database.endpoint, mqtt, mqtt.filters, spool];
  for (const part of [...frozen, ...mqtt.endpoints, mqtt.tls, config.warnings]) {
    assert.ok(Object.isFrozen(part));
  }
});

Deno.test("a command that needs only the database requires no other setting", () => {
  const { MQTT_HOST: _, ...env } = MINIMAL;
  const database = parseDatabaseConfig({ ...env, MQTT_QOS: "x" }, readFile);
  assert.deepEqual(database.endpoint, { host: "db", port: 5432 });
  assert.ok(Object.isFrozen(database));
  assert.throws(
    () => parseDatabaseConfig({}, readFile),
    /^ConfigError: DATABASE_HOST: must be set$/m,
  );
});

Deno.test("a command that queries a running logger requires only a valid address", () => {
  const refused = (env: Environment): string => {
    let message = "";
    assert.throws(() => parseHttpConfig(env, readFile), (error) => {
      assert.ok(error instanceof ConfigError);
      message = error.message;
      return true;
    });
    return message;
  };
  assert.match(refused({}), /^HTTP_PORT: must be set/);
  assert.match(refused({ HTTP_HOST: "::1" }), /^HTTP_PORT: must be set/);
  assert.match(
    refused({ HTTP_HOST: "localhost:80", HTTP_PORT: "80" }),
    /^HTTP_HOST: must be .*, received 'localhost:80'$/,
  );
});

Deno.test("a command that needs the spool, or spool and database, requires no other setting", () => {
  const { MQTT_HOST: _, ...env } = { ...MINIMAL, SPOOL_DIRECTORY: "/spool", MQTT_QOS: "x" };
  const spool = { directory: "/spool", maxBytes: 2 ** 30, tuning: DEFAULT_TUNING };
  const { database: expected } = parse();
  assert.deepEqual(parseSpoolConfig({ SPOOL_DIRECTORY: "/spool" }, readFile), spool);
  assert.deepEqual(parseStorageConfig(env, readFile), { database: expected, spool });
  assert.deepEqual(parseSpoolConfig({ STATE_DIRECTORY: "/spool:/other" }, readFile), spool);
  const missing = "SPOOL_DIRECTORY: must be set to the spool directory of the logger";
  assert.throws(() => parseSpoolConfig({}, readFile), { name: "ConfigError", message: missing });
  assert.throws(() => parseStorageConfig(MINIMAL, readFile), { message: missing });
  assert.throws(
    () => parseStorageConfig({ SPOOL_DIRECTORY: "/spool", SPOOL_MAX_BYTES: "x" }, readFile),
    /^ConfigError: DATABASE_HOST: must be set\n(.*\n)*SPOOL_MAX_BYTES: must be/,
  );
});

Deno.test("tests may shorten timings and limits, and the logger warns of it", () => {
  const { tuning, database, mqtt, warnings } = parse({
    KRAKEN_TEST_TUNING: '{"mqttKeepaliveSeconds": 2, "stuckAfterMs": 0}',
  });
  assert.deepEqual(tuning, { ...DEFAULT_TUNING, mqttKeepaliveSeconds: 2, stuckAfterMs: 0 });
  assert.deepEqual([database.tuning, mqtt.tuning], [tuning, tuning]);
  assert.match(warnings.join(), /^KRAKEN_TEST_TUNING is set: .* for tests only\.$/);
  for (
    const text of [
      "x",
      "[]",
      "null",
      '{"unknown": 1}',
      '{"stuckAfterMs": "1"}',
      '{"stuckAfterMs": -1}',
    ]
  ) {
    const [line = ""] = refusal({ KRAKEN_TEST_TUNING: text });
    assert.match(line, /^KRAKEN_TEST_TUNING: must be a JSON object with numbers, of maxReconnect/);
  }
});
