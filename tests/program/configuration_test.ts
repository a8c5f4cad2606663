/**
 * The configuration of the whole program: its sources, and the messages about its problems.
 */
import assert from "node:assert/strict";
import { type LoggerEnv, loggerEnv, runLogger, startLogger } from "../support/logger_process.ts";
import { findFreePort, LOOPBACK } from "../support/ports.ts";

const SECRET = "s3cr3t";

/** Addresses without services: the logger reports them as unavailable and retries. */
function envWithoutServices(overrides: LoggerEnv = {}): LoggerEnv {
  const port = findFreePort();
  const logger = { host: LOOPBACK, port, user: "u", password: SECRET, database: "sensors" };
  return loggerEnv({ database: { logger }, broker: { host: LOOPBACK, port } }, overrides);
}

/** A temporary directory with files in it. The caller disposes it. */
function makeDirectory(files: Readonly<Record<string, string>>): Disposable & { path: string } {
  const path = Deno.makeTempDirSync({ prefix: "kraken-test-" });
  for (const [name, content] of Object.entries(files)) {
    Deno.writeTextFileSync(`${path}/${name}`, content);
  }
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

Deno.test("without any setting, the required ones are listed and the exit status is 78", async () => {
  for (const args of [[], ["run"], ["check"]]) {
    const { code, stdout, stderr } = await runLogger(args);
    assert.deepEqual([code, stdout], [78, ""]);
    assert.deepEqual(stderr.trimEnd().split("\n"), [
      "The configuration is invalid:",
      "DATABASE_HOST: must be set",
      "DATABASE_USER: must be set (or DATABASE_USER_FILE to the path of a file)",
      "DATABASE_PASSWORD: must be set (or DATABASE_PASSWORD_FILE to the path of a file)",
      "MQTT_HOST: must be set",
    ]);
  }
});

Deno.test("all problems are listed, one line each, without a secret", async () => {
  const env = envWithoutServices({
    DATABASE_PORT: "99999",
    DATABASE_USER: SECRET,
    MQTT_HOST: "broker:x",
    MQTT_PORT: "mqtt",
    MQTT_QOS: "3",
    MQTT_TOPIC: "sensors/#/a",
    MQTT_CLIENT_PASSWORD_FILE: "/does/not/exist",
    APPLICATION_LOG_FORMAT: "xml",
    HTTP_HOST: "127.0.0.1:8000",
    HTTP_PORT: "8000",
  });
  const { code, stderr } = await runLogger([], env);
  assert.equal(code, 78);
  const lines = stderr.trimEnd().split("\n").slice(1);
  assert.deepEqual(lines.map((line) => line.split(":")[0]).toSorted(), [
    "APPLICATION_LOG_FORMAT",
    "DATABASE_PORT",
    "HTTP_HOST",
    "MQTT_CLIENT_PASSWORD_FILE",
    "MQTT_HOST",
    "MQTT_PORT",
    "MQTT_QOS",
    "MQTT_TOPIC",
  ]);
  assert.ok(lines.includes("MQTT_QOS: must be one of 0, 1, 2, received '3'"));
  assert.match(stderr, /'\/does\/not\/exist'/);
  assert.match(stderr, /No such file or directory/);
  assert.doesNotMatch(stderr, new RegExp(SECRET));
});

Deno.test("secrets come from files, and the environment takes precedence over .env", async () => {
  const dead = findFreePort();
  using directory = makeDirectory({
    user: "file-user\n",
    password: `${SECRET}\r\n`,
    ".env": [
      "# not set by the environment",
      `DATABASE_HOST="${LOOPBACK}:${dead}"`,
      `DATABASE_PASSWORD_FILE=password`,
      "DATABASE_NAME='from-dotenv'",
      "MQTT_CLIENT_ID=dotenv",
      `export MQTT_HOST=${LOOPBACK}:${dead} # a comment`,
    ].join("\n"),
  });
  const env = { DATABASE_USER_FILE: `${directory.path}/user`, DATABASE_NAME: "from-environment" };
  await using logger = startLogger(env, { cwd: directory.path });
  const where = `'from-environment' at '${LOOPBACK}:${dead}'`;
  await logger.waitForLine(`ERROR    Database ${where} is not available: connection refused`);
  await logger.waitForLine(`ERROR    MQTT broker '${LOOPBACK}:${dead}' is not available`);
  assert.equal(await logger.stop(), 0);
  assert.doesNotMatch(logger.lines.join("\n"), /WARNING|s3cr3t|file-user/);
});

Deno.test("an empty variable is taken from .env, where a '#' can be part of a value", async () => {
  using directory = makeDirectory({
    ".env": [
      "DATABASE_PASSWORD=from-dotenv",
      "MQTT_TOPIC=lab/#,lab#",
      "MQTT_QOS=a'1#2 # a comment",
    ].join("\n"),
  });
  const env = envWithoutServices({ DATABASE_PASSWORD: "", DATABASE_USER: "", MQTT_QOS: "" });
  await using logger = startLogger(env, { cwd: directory.path });
  assert.equal((await logger.exited).code, 78);
  await logger.waitForLine(/^MQTT_QOS: /);
  assert.deepEqual(logger.lines.map((line) => line.replace(/: .*, received/, ":")), [
    "The configuration is invalid:",
    "DATABASE_USER: must be set (or DATABASE_USER_FILE to the path of a file)",
    "MQTT_TOPIC: 'lab#'",
    "MQTT_QOS: 'a'1#2'",
  ]);
});

Deno.test("a device file is refused in the words of the logger, not of the runtime", async () => {
  const { DATABASE_PASSWORD: _, ...env } = envWithoutServices();
  for (const args of [["run"], ["check"]]) {
    const { code, stderr } = await runLogger(args, {
      ...env,
      DATABASE_PASSWORD_FILE: "/dev/stdin",
    });
    assert.equal(code, 78);
    assert.equal(
      stderr,
      "The configuration is invalid:\nDATABASE_PASSWORD_FILE: names a file that cannot be read " +
        "(only ordinary files and directories can be used here), received '/dev/stdin'\n",
    );
  }
  // Some versions of the runtime query the system about directories in /proc.
  const reason = "(only ordinary files and directories can be used here|No such file or directory)";
  const spool = envWithoutServices({ SPOOL_DIRECTORY: "/proc/kraken" });
  await using logger = startLogger(spool);
  assert.equal((await logger.exited).code, 1);
  await logger.waitForLine(
    new RegExp(`'/proc/kraken': cannot create the directory: ${reason}\\.$`),
  );
  const { stdout } = await runLogger(["check"], spool);
  assert.match(stdout, new RegExp(`^PROBLEM  Spool in '/proc/kraken': .*${reason}`, "m"));
  assert.doesNotMatch(stdout + logger.lines.join("\n"), /--allow|Requires/);
});

Deno.test("an unreadable .env or secret file is a configuration error", async () => {
  using directory = makeDirectory({});
  Deno.mkdirSync(`${directory.path}/.env`);
  await using first = startLogger(envWithoutServices(), { cwd: directory.path });
  assert.equal((await first.exited).code, 78);
  await first.waitForLine(/^\.env: .*cannot be read \(Is a directory\)$/);
  const { DATABASE_PASSWORD: _, ...env } = envWithoutServices();
  const file = { DATABASE_PASSWORD_FILE: "/run/secrets/gone" };
  const { code, stderr } = await runLogger([], { ...env, ...file });
  assert.equal(code, 78);
  assert.equal(
    stderr,
    "The configuration is invalid:\nDATABASE_PASSWORD_FILE: names a file that cannot be read " +
      "(No such file or directory), received '/run/secrets/gone'\n",
  );
});

Deno.test("an odd but harmless setting causes one warning at the start", async () => {
  const env = envWithoutServices({
    MQTT_CLIENT_ID: "",
    MQTT_CLIENTID: "logger",
    DATABASE_PASSWROD: SECRET,
    APPLICATION_LOG_LEVEL: "chatty",
    LOG_FORMAT: "json",
    HTTP_HOST: "0.0.0.0",
  });
  await using logger = startLogger(env);
  await logger.waitForLine("MQTT broker");
  assert.equal(await logger.stop(), 0);
  const warnings = logger.lines.filter((line) => line.includes(" WARNING "));
  const patterns = [
    /APPLICATION_LOG_LEVEL must be DEBUG, .*received 'chatty'\. INFO is used instead\.$/,
    /LOG_FORMAT .*Did you mean APPLICATION_LOG_FORMAT\?$/,
    /HTTP_HOST has no effect without HTTP_PORT\.$/,
    /MQTT_CLIENTID .*Did you mean MQTT_CLIENT_ID\?$/,
    /DATABASE_PASSWROD .*Did you mean DATABASE_PASSWORD\?$/,
    /MQTT_CLIENT_ID is not set: .*Messages are lost/,
  ];
  for (const pattern of patterns) {
    assert.equal(warnings.filter((line) => pattern.test(line)).length, 1, `${pattern}`);
  }
  assert.equal(warnings.length, patterns.length);
  assert.ok(logger.lines.some((line) => line.includes(" INFO ")));
  assert.doesNotMatch(logger.lines.join("\n"), new RegExp(`${SECRET}| DEBUG `));
});

Deno.test("the log is text or JSON, one event per line, at the configured level", async () => {
  await using text = startLogger(envWithoutServices({ APPLICATION_LOG_LEVEL: "debug" }));
  await text.waitForLine(/ DEBUG {4}\S/);
  assert.equal(await text.stop("SIGINT"), 0);
  for (const line of text.lines) {
    assert.match(
      line,
      /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARNING|ERROR) +\S.*[.?]$/,
    );
  }
  const format = { APPLICATION_LOG_FORMAT: "json", APPLICATION_LOG_LEVEL: "WARN" };
  await using json = startLogger(envWithoutServices(format));
  await json.waitForLine("MQTT broker");
  assert.equal(await json.stop("SIGHUP"), 0);
  assert.ok(json.lines.length > 0);
  for (const line of json.lines) {
    const { time, level, message, ...rest } = JSON.parse(line) as Record<string, string>;
    assert.deepEqual(rest, {});
    assert.equal(new Date(time ?? "").toISOString(), time);
    assert.ok(level === "ERROR" || level === "WARNING", line);
    assert.match(message ?? "", /^\S.*\S$/);
  }
});
