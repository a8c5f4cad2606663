/**
 * What is shipped beside the program: the README and the systemd unit. They name settings, versions
 * and files of the program, and must not drift away from it.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { parse as parseEnv } from "dotenv";
import metadata from "../../deno.json" with { type: "json" };
import { type Config, parseConfig } from "../../lib/config/config.ts";
import { SETTINGS } from "../../lib/config/setting_names.ts";
import { type Environment, SECRETS } from "../../lib/config/settings.ts";
import { HELP } from "../../demo/command_line.ts";
import { createSensors } from "../../demo/sensors.ts";
import { RUN_FLAGS } from "../../deploy/run_flags.ts";
import { runProgram } from "../support/process.ts";
import { isFile, lacks } from "../support/programs.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
const UNIT = "deploy/systemd/kraken-logger.service";
const INSTANCE_UNIT = "deploy/systemd/kraken-logger@.service";
const README = read("README.md");

/** Set by systemd and not by the operator: the default of SPOOL_DIRECTORY. */
const NOT_FOR_OPERATORS = "STATE_DIRECTORY";

function read(path: string): string {
  return Deno.readTextFileSync(`${ROOT}/${path}`);
}

/** Parses a configuration in which every file holds a word. */
function parse(env: Environment): Config {
  return parseConfig(env, () => "secret\n");
}

interface DocumentedSetting {
  readonly default: string;
  readonly secret: boolean;
}

/** The rows of the README's table of settings, by variable. */
function readSettingsTable(): Map<string, DocumentedSetting> {
  const section = /\n## Configuration\n(.*?)\n## /s.exec(README)?.[1] ?? "";
  const rows = section.split("\n").filter((line) => line.startsWith("| `"));
  return new Map(rows.flatMap((row) => {
    const [, names = "", defaultText = ""] = row.split("|");
    const setting = { default: defaultText.trim(), secret: names.includes("_secret_") };
    return [...names.matchAll(/`([A-Z_]+)`/g)].map(([, name = ""]) => [name, setting] as const);
  }));
}

Deno.test("the README describes all settings and no others", () => {
  const documented = readSettingsTable();
  const files: readonly string[] = SECRETS.map((name) => `${name}_FILE`);
  const expected = SETTINGS.filter((name) => !files.includes(name) && name !== NOT_FOR_OPERATORS);
  assert.deepEqual([...documented.keys()].sort(), expected.sort());
  const secrets = [...documented].filter(([, { secret }]) => secret).map(([name]) => name);
  assert.deepEqual(secrets.sort(), [...SECRETS].sort());
});

Deno.test("the README's defaults are those of the program", () => {
  const { database, mqtt, log, http } = parse({
    DATABASE_HOST: "database",
    DATABASE_USER: "user",
    DATABASE_PASSWORD: "secret",
    MQTT_HOST: "broker",
    HTTP_PORT: "8080",
  });
  const defaults = {
    DATABASE_PORT: database.endpoint.port,
    DATABASE_NAME: database.name,
    DATABASE_SSLMODE: database.sslMode,
    DATABASE_CONNECTIONS: database.connections,
    MQTT_PORT: mqtt.endpoints[0]?.port,
    MQTT_TOPIC: mqtt.filters.join(","),
    MQTT_QOS: mqtt.qos,
    APPLICATION_LOG_LEVEL: log.level,
    APPLICATION_LOG_FORMAT: log.format,
    HTTP_HOST: http?.host,
  };
  const documented = readSettingsTable();
  for (const [name, value] of Object.entries(defaults)) {
    assert.match(documented.get(name)?.default ?? "", /^`[^`]*`/, name);
    assert.equal(/^`([^`]*)`/.exec(documented.get(name)?.default ?? "")?.[1], String(value), name);
  }
});

Deno.test("the tasks and files that the README names exist", () => {
  const tasks = [...README.matchAll(/deno(?:@[\d.]+)? task ([a-z]+)/g)].map(([, name]) => name);
  assert.ok(tasks.length > 5);
  for (const task of tasks) {
    assert.ok(Object.hasOwn(metadata.tasks, task ?? ""), `there is no task '${task}'`);
  }
  const paths = README.matchAll(
    /(?:^|[\s`(])((?:lib|deploy|tests|bench|demo|\.ci)\/[\w./@-]*[\w/])/gm,
  );
  const named = new Set([...paths].map(([, path = ""]) => path));
  assert.ok(named.size > 5);
  for (const path of named) {
    // Secrets are the operator's.
    if (path.includes("/secrets")) continue;
    assert.ok(Deno.statSync(`${ROOT}/${path}`), path);
  }
});

Deno.test("the README lists all modules of lib/ and no others", () => {
  const rows = [...README.matchAll(/^\| `(lib\/\w+)\/` +\| (.*) \|$/gm)];
  const listed = rows.flatMap(([, folder, modules = ""]) =>
    [...modules.matchAll(/`([\w/]+\.ts)`/g)].map(([, name]) => `${folder}/${name}`)
  );
  const files = listFiles("lib").filter((path) => path.endsWith(".ts") && path !== "lib/logger.ts");
  assert.deepEqual(listed.sort(), files.sort());
});

/** The files below a folder, as paths from the root of the project. */
function listFiles(folder: string): string[] {
  return [...Deno.readDirSync(`${ROOT}/${folder}`)].flatMap(({ name, isDirectory }) =>
    isDirectory ? listFiles(`${folder}/${name}`) : [`${folder}/${name}`]
  );
}

Deno.test("the README explains each permission of the binary", () => {
  const explained = [...README.matchAll(/^\| `(--allow-[a-z]+)`/gm)].map(([, flag]) => flag);
  const permissions = RUN_FLAGS.filter((flag) => flag.startsWith("--allow-"));
  assert.deepEqual(explained.sort(), permissions.sort());
  assert.ok(metadata.tasks.start.startsWith(`deno run ${RUN_FLAGS.join(" ")} `));
});

Deno.test("one version of Deno and one of the program are named everywhere", () => {
  const [, denoVersion] = /DENO_VERSION=([\d.]+)/.exec(read(".ci/run")) ?? [];
  const dockerfile = read("Dockerfile");
  const images = [...dockerfile.matchAll(/denoland\/deno:(?:distroless-)?([\d.]+)/g)];
  assert.deepEqual(images.map(([, version]) => version), [denoVersion, denoVersion]);
  const commands = [...README.matchAll(/npx -y deno@([\d.]+)/g)].map(([, version]) => version);
  assert.deepEqual(new Set(commands), new Set([denoVersion]));
  const [, label] = /image\.version="([\d.]+)"/.exec(dockerfile) ?? [];
  assert.equal(label, metadata.version);
});

Deno.test("no command of the README is broken over two lines by the formatter", () => {
  for (const path of ["README.md", "deploy/kubernetes/README.md", "deploy/scaling.md"]) {
    const text = read(path).replaceAll(/^ *```.*?^ *```$/gms, "");
    const broken = text.split("\n").filter((line) => line.split("`").length % 2 === 0);
    assert.deepEqual(broken, [], path);
  }
});

/** The settings of a unit or a drop-in, by name; a setting may be there more than once. */
function readUnit(path: string): Map<string, string[]> {
  const settings = new Map<string, string[]>();
  for (const [, name = "", value = ""] of read(path).matchAll(/^(\w+)=(.*)$/gm)) {
    settings.set(name, [...settings.get(name) ?? [], value]);
  }
  return settings;
}

Deno.test("the unit's environment is a complete configuration, with and without a broker's password", () => {
  const file = read("deploy/systemd/kraken-logger.env");
  const parseUnits = (settings: string, paths: readonly string[]): Config => {
    const units = paths.map(readUnit);
    const environment = units.flatMap((unit) => unit.get("Environment") ?? []);
    const text = [settings, ...environment].join("\n").replaceAll("%d", "/credentials");
    const loaded = units.flatMap((unit) => unit.get("LoadCredential") ?? [])
      .map((credential) => credential.split(":")[0]);
    return parseConfig({ ...parseEnv(text), STATE_DIRECTORY: "/var/lib/kraken-logger" }, (path) => {
      assert.ok(loaded.includes(path.replace("/credentials/", "")), path);
      return "secret\n";
    });
  };
  const { mqtt, database, warnings } = parseUnits(file, [UNIT]);
  assert.equal(database.password, "secret");
  assert.deepEqual([mqtt.user, mqtt.password], [undefined, undefined]);
  assert.ok(mqtt.clientId, "without a client id, messages are lost");
  assert.deepEqual(warnings, []);
  const withUser = file.replace("#MQTT_CLIENT_USER", "MQTT_CLIENT_USER");
  const protectedBroker = parseUnits(withUser, [UNIT, "deploy/systemd/mqtt-password.conf"]).mqtt;
  assert.deepEqual([protectedBroker.user, protectedBroker.password], ["kraken", "secret"]);
});

Deno.test("the unit waits for the logger's end and leaves configuration errors alone", () => {
  const unit = readUnit(UNIT);
  const only = (name: string): string => (unit.get(name) ?? []).join(" ");
  assert.equal(only("Restart"), "on-failure");
  assert.equal(only("RestartPreventExitStatus"), "78");
  // 10 s to store what is in hand, 5 s to acknowledge it and 5 s to close the connection.
  assert.ok(Number(only("TimeoutStopSec")) > 20);
  assert.equal(unit.has("MemoryDenyWriteExecute"), false, "the JavaScript engine would not start");
});

for (const unit of [UNIT, INSTANCE_UNIT]) {
  Deno.test(`systemd finds ${unit} valid and well protected`, {
    ignore: lacks("systemd-analyze"),
  }, async () => {
    const folder = Deno.makeTempDirSync({ prefix: "kraken-test-" });
    try {
      const path = `${folder}/${unit.slice(unit.lastIndexOf("/") + 1).replace("@", "@lab")}`;
      // The program need not be installed where the tests run.
      const text = read(unit).replace("/usr/local/bin/kraken-logger", "/bin/true");
      Deno.writeTextFileSync(path, text);
      const args = ["verify", "--man=no", path];
      const verified = await runProgram("systemd-analyze", { args });
      assert.equal(verified.stdout + verified.stderr, "");
      assert.equal(verified.code, 0);
      // The threshold counts in tenths: 20 is an exposure of 2.0.
      const security = ["security", "--offline=true", "--no-pager", "--threshold=20", path];
      const { code, stdout, stderr } = await runProgram("systemd-analyze", { args: security });
      assert.match(stdout, /Overall exposure level/);
      assert.equal(code, 0, stdout + stderr);
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  });
}

Deno.test("the instance unit is the unit with the instance's files", () => {
  const settings = (path: string): string =>
    read(path).replaceAll(/^#.*\n/gm, "").replace(/^Description=.*$/m, "");
  const plain = settings(UNIT)
    .replaceAll("/etc/kraken-logger/kraken-logger.env", "/etc/kraken-logger/%i.env")
    .replaceAll("/etc/kraken-logger/database-", "/etc/kraken-logger/%i.database-")
    .replaceAll(/^StateDirectory=.*$|(?<=%S\/)kraken-logger$/gm, (text) => `${text}-%i`);
  assert.equal(settings(INSTANCE_UNIT).trim(), plain.trim());
});

Deno.test("the demonstration's help and picture tell how many sensors it has", () => {
  const words = ["seven", "eight", "nine", "ten", "eleven"];
  const word = words[createSensors().length - 7] ?? assert.fail("needs another word");
  assert.ok(HELP.includes(`measures ${word} sensors`));
  assert.ok(README.includes(`a table of ${word} sensors`));
});

Deno.test("the license is there, and is the one that is declared", () => {
  assert.ok(isFile(`${ROOT}/LICENSE`));
  assert.match(read("LICENSE"), /GNU GENERAL PUBLIC LICENSE\s+Version 3/);
  assert.equal(metadata.license, "GPL-3.0-or-later");
});
