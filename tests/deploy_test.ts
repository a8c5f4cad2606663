/**
 * What is shipped beside the program: the README, the systemd unit, the image, the composition.
 * They name settings, versions and files of the program, and must not drift away from it.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { parse as parseEnv } from "dotenv";
import metadata from "../deno.json" with { type: "json" };
import { parse as parseYaml } from "yaml";
import { type Config, parseConfig, SETTINGS } from "../lib/config.ts";
import { type Environment, SECRETS } from "../lib/settings.ts";
import { RUN_FLAGS } from "../deploy/run_flags.ts";
import { runProgram } from "./services/process.ts";
import { findProgram, isFile } from "./services/programs.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "");
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
  const paths = README.matchAll(/(?:^|[\s`(])((?:lib|deploy|tests|demo|\.ci)\/[\w./@-]*[\w/])/gm);
  const named = new Set([...paths].map(([, path = ""]) => path));
  assert.ok(named.size > 5);
  for (const path of named) {
    // Secrets are the operator's.
    if (path.includes("/secrets")) continue;
    assert.ok(Deno.statSync(`${ROOT}/${path}`), path);
  }
});

Deno.test("the README lists all modules of lib/ and no others", () => {
  const section = /\n## Development\n(.*?)\n## /s.exec(README)?.[1] ?? "";
  const listed = [...section.matchAll(/`(\w+\.ts)`/g)].map(([, name]) => name);
  const names = [...Deno.readDirSync(`${ROOT}/lib`)].filter(({ isFile }) => isFile)
    .map(({ name }) => name);
  assert.deepEqual(listed.filter((name) => name !== "main.ts").sort(), names.sort());
});

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

Deno.test("the image starts the binary itself, as a user without rights", () => {
  const dockerfile = read("Dockerfile");
  const last = dockerfile.slice(dockerfile.lastIndexOf("\nFROM "));
  const [, check = "null"] = /^HEALTHCHECK [^\n]*\\\n +CMD (.*)$/m.exec(last) ?? [];
  assert.deepEqual(JSON.parse(check), ["/usr/local/bin/kraken-logger", "healthcheck"]);
  const variables = Object.fromEntries(
    [...last.matchAll(/^ENV (\w+)=(.*)$/gm)].map(([, name = "", value = ""]) => [name, value]),
  );
  const mandatory = {
    DATABASE_HOST: "d",
    DATABASE_USER: "u",
    DATABASE_PASSWORD: "p",
    MQTT_HOST: "m",
  };
  const config = parseConfig({ ...mandatory, ...variables }, () => "");
  assert.ok(config.http);
  assert.match(last, new RegExp(`^VOLUME ${config.spool?.directory}$`, "m"));
  const [, entrypoint = "null"] = /^ENTRYPOINT (.*)$/m.exec(last) ?? [];
  assert.deepEqual(JSON.parse(entrypoint), ["/usr/local/bin/kraken-logger"]);
  // A name would not let Kubernetes see that it is not root.
  assert.match(last, /^USER 65532:65532$/m);
  assert.doesNotMatch(last, /^RUN /m);
  const allowed = read(".dockerignore").split("\n").filter((line) => line.startsWith("!"))
    .map((line) => line.slice(1).replace(/\/$/, ""));
  const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.*) \S+$/gm)]
    .flatMap(([, sources = ""]) => sources.split(" ")).map((path) => path.replace(/\/$/, ""));
  assert.deepEqual(copied.sort(), allowed.sort());
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

const withoutSystemd = findProgram("systemd-analyze") === null && Deno.env.get("CI") !== "true";

for (const unit of [UNIT, INSTANCE_UNIT]) {
  Deno.test(`systemd finds ${unit} valid and well protected`, {
    ignore: withoutSystemd,
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

/** The lines of a service, without the indentation that they have in common. */
function readService(name: string): string {
  const text = read("deploy/compose/docker-compose.yml");
  const [, block = ""] = new RegExp(`\n  ${name}:\n((?:(?: {4}.*)?\n)*)`).exec(text) ?? [];
  assert.notEqual(block, "", `there is no service '${name}'`);
  return block.replaceAll(/^ {4}/gm, "");
}

function readServiceEnvironment(name: string): Record<string, string> {
  const [, block = ""] = /^environment:\n((?: {2}.*\n)*)/m.exec(readService(name)) ?? [];
  const pairs = [...block.matchAll(/^ {2}([A-Z_]+): (.*)$/gm)];
  return Object.fromEntries(pairs.map(([, key = "", value = ""]) => [key, value]));
}

Deno.test("the composition configures the logger without a warning, and its secrets are files", () => {
  const config = parse(readServiceEnvironment("logger"));
  assert.deepEqual(config.warnings, []);
  assert.ok(config.mqtt.clientId, "without a client id, messages are lost");
  assert.equal(config.mqtt.password, "secret");
  const text = read("deploy/compose/docker-compose.yml");
  assert.doesNotMatch(text, /PASSWORD: /);
  const secrets = [...text.matchAll(/^ {2}(\w+): \{ file: \.\/secrets\/\1 \}$/gm)]
    .map(([, name]) => name);
  const used = [...text.matchAll(/^ {4}secrets: \[(.*)\]$/gm)]
    .flatMap(([, names = ""]) => names.split(", "));
  assert.deepEqual(new Set(used), new Set(secrets));
  for (const name of secrets) {
    assert.ok(README.includes(name ?? ""), `the README does not say how '${name}' is made`);
  }
  for (const [, path = ""] of text.matchAll(/^ {6}- \.\/([^:]+):/gm)) {
    assert.ok(Deno.statSync(`${ROOT}/deploy/compose/${path}`), path);
  }
});

Deno.test("the composition's replicas share the stream under names and with spools of their own", () => {
  const { services, volumes } = parseYaml(read("deploy/compose/replicas.yml"));
  const first = { ...readServiceEnvironment("logger"), ...services.logger.environment };
  const second = { ...readServiceEnvironment("logger"), ...services.logger2.environment };
  const [one, two] = [parse(first), parse(second)];
  assert.ok(one.mqtt.sharedGroup);
  assert.equal(two.mqtt.sharedGroup, one.mqtt.sharedGroup);
  assert.notEqual(two.mqtt.clientId, one.mqtt.clientId);
  const [name, path] = services.logger2.volumes[0].split(":");
  assert.ok(name in volumes);
  assert.equal(path, two.spool?.directory);
});

Deno.test("the services of the composition come back after a restart of the machine", () => {
  for (const name of ["mosquitto", "database", "logger"]) {
    assert.match(readService(name), /^restart: unless-stopped$/m, name);
    assert.match(readService(name), /^stop_grace_period: [346]0s$/m, name);
  }
});

Deno.test("docker finds the composition valid", {
  ignore: !await hasDockerCompose(),
}, async () => {
  const folder = `${ROOT}/deploy/compose`;
  const args = ["compose", "--file", `${folder}/docker-compose.yml`, "config", "--quiet"];
  const { code, stdout, stderr } = await runProgram("docker", { args });
  assert.equal(code, 0, stdout + stderr);
});

async function hasDockerCompose(): Promise<boolean> {
  if (findProgram("docker") === null) return false;
  return (await runProgram("docker", { args: ["compose", "version"] })).code === 0;
}

Deno.test("the license is there, and is the one that is declared", () => {
  assert.ok(isFile(`${ROOT}/LICENSE`));
  assert.match(read("LICENSE"), /GNU GENERAL PUBLIC LICENSE\s+Version 3/);
  assert.equal(metadata.license, "GPL-3.0-or-later");
});
