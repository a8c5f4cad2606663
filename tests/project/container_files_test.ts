/** The image and the Compose files: how they configure the logger, and how docs/container.md starts it. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { parse as parseEnv } from "dotenv";
import { parse as parseYaml } from "yaml";
import { type Config, parseConfig } from "../../lib/config/config.ts";
import type { Environment } from "../../lib/config/settings.ts";
import { runProgram } from "../support/process.ts";
import { leaveOut } from "../support/left_out.ts";
import { lacks } from "../support/programs.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
const PAGE = read("docs/container.md");

function read(path: string): string {
  return Deno.readTextFileSync(`${ROOT}/${path}`);
}

/** Parses a configuration; every file that it names contains one word. */
function parse(env: Environment): Config {
  return parseConfig(env, () => "secret\n");
}

/** The last stage of the Dockerfile: the image. */
function readImage(): string {
  const dockerfile = read("Dockerfile");
  return dockerfile.slice(dockerfile.lastIndexOf("\nFROM "));
}

function readImageVariables(): Record<string, string> {
  return Object.fromEntries(
    [...readImage().matchAll(/^ENV (\w+)=(.*)$/gm)]
      .map(([, name = "", value = ""]) => [name, value]),
  );
}

Deno.test("the image starts the binary itself, as an unprivileged user", () => {
  const dockerfile = read("Dockerfile");
  const last = readImage();
  const [, check = "null"] = /^HEALTHCHECK [^\n]*\\\n +CMD (.*)$/m.exec(last) ?? [];
  assert.deepEqual(JSON.parse(check), ["/usr/local/bin/kraken-logger", "healthcheck"]);
  const mandatory = {
    DATABASE_HOST: "d",
    DATABASE_USER: "u",
    DATABASE_PASSWORD: "p",
    MQTT_HOST: "m",
  };
  const config = parseConfig({ ...mandatory, ...readImageVariables() }, () => "");
  assert.ok(config.http);
  assert.match(last, new RegExp(`^VOLUME ${config.spool?.directory}$`, "m"));
  const [, entrypoint = "null"] = /^ENTRYPOINT (.*)$/m.exec(last) ?? [];
  assert.deepEqual(JSON.parse(entrypoint), ["/usr/local/bin/kraken-logger"]);
  // With a name, Kubernetes could not verify that it is not root.
  assert.match(last, /^USER 65532:65532$/m);
  assert.doesNotMatch(last, /^RUN /m);
  const allowed = read(".dockerignore").split("\n").filter((line) => line.startsWith("!"))
    .map((line) => line.slice(1).replace(/\/$/, ""));
  const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.*) \S+$/gm)]
    .flatMap(([, sources = ""]) => sources.split(" ")).map((path) => path.replace(/\/$/, ""));
  assert.deepEqual(copied.sort(), allowed.sort());
});

/** A `docker run` of docs/container.md: its options with values, and the arguments after the image. */
interface DockerRun {
  readonly options: ReadonlyMap<string, readonly string[]>;
  readonly args: readonly string[];
}

const DOCKER_FLAGS = ["--rm", "--detach", "--read-only"];

function parseDockerRun(command: string): DockerRun {
  const words = command.replaceAll(/\\\n/g, " ").split(/\s+/).filter((word) => word !== "").slice(
    2,
  );
  const options = new Map<string, string[]>();
  let word;
  while ((word = words.shift()) !== undefined && word.startsWith("--")) {
    const value = DOCKER_FLAGS.includes(word) ? "" : words.shift() ?? "";
    options.set(word, [...options.get(word) ?? [], value]);
  }
  assert.equal(word, "kraken-logger", "the image");
  return { options, args: words };
}

Deno.test("the documented containers have a writable spool on a volume, and time to stop", () => {
  const commands = [...PAGE.matchAll(/^docker run (?:.*\\\n)*.*$/gm)].map(([text]) => text);
  assert.equal(commands.length, 3);
  const [, file = ""] = /cat > \.env <<'END'\n(.*?)END\n/s.exec(read("docs/install.md")) ?? [];
  assert.match(file, /SPOOL_DIRECTORY/);
  for (const { options, args } of commands.map(parseDockerRun)) {
    assert.deepEqual(options.get("--env-file"), [".env"]);
    assert.deepEqual(options.get("--cap-drop"), ["ALL"]);
    assert.ok(options.has("--read-only"));
    const set = parseEnv((options.get("--env") ?? []).join("\n"));
    const { spool, http } = parse({ ...readImageVariables(), ...parseEnv(file), ...set });
    const [, mountedAt] = options.get("--volume")?.[0]?.split(":") ?? [];
    assert.equal(spool?.directory, mountedAt);
    if (options.has("--network")) {
      assert.deepEqual(options.get("--network"), ["host"]);
      // Docker ignores the option in that case.
      assert.ok(!options.has("--publish"));
    } else {
      assert.equal(http?.host, "0.0.0.0");
      assert.equal(options.get("--publish")?.[0]?.split(":").at(-1), String(http?.port));
    }
    if (options.has("--rm")) assert.deepEqual(args, ["check"]);
    else {
      assert.deepEqual(args, []);
      assert.ok(options.has("--detach"));
      assert.deepEqual(options.get("--restart"), ["unless-stopped"]);
      // As in the Compose file; the default is 10 s.
      assert.equal(`${options.get("--stop-timeout")}s`, readStopGracePeriod("logger"));
    }
  }
});

/** The lines of a service, without their common indentation. */
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

function readStopGracePeriod(name: string): string {
  return /^stop_grace_period: (\w+)$/m.exec(readService(name))?.[1] ?? "";
}

Deno.test("the Compose file configures the logger without a warning, and its secrets are files", () => {
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
    assert.ok(
      PAGE.includes(name ?? ""),
      `docs/container.md does not describe how to create '${name}'`,
    );
  }
  for (const [, path = ""] of text.matchAll(/^ {6}- \.\/([^:]+):/gm)) {
    assert.ok(Deno.statSync(`${ROOT}/deploy/compose/${path}`), path);
  }
});

Deno.test("the replicas share the messages, each with a separate name and spool", () => {
  const { services: { logger } } = parseYaml(read("deploy/compose/docker-compose.yml"), {
    merge: true,
  });
  const { services, volumes } = parseYaml(read("deploy/compose/replicas.yml"));
  const { environment, volumes: [mount], ...rest } = services.logger2;
  const [one, two] = [
    parse({ ...logger.environment, ...services.logger.environment }),
    parse(environment),
  ];
  assert.ok(one.mqtt.sharedGroup);
  assert.notEqual(two.mqtt.clientId, one.mqtt.clientId);
  // All other settings are the same.
  assert.deepEqual({ ...two, mqtt: { ...two.mqtt, clientId: one.mqtt.clientId }, http: null }, {
    ...one,
    http: null,
  });
  const { environment: _, volumes: [firstMount], ...firstRest } = logger;
  assert.deepEqual(rest, firstRest);
  assert.notEqual(mount, firstMount);
  const [name, path] = mount.split(":");
  assert.ok(name in volumes);
  assert.equal(path, two.spool?.directory);
});

Deno.test("Docker restarts the services after a restart of the machine", () => {
  for (const name of ["mosquitto", "database", "logger"]) {
    assert.match(readService(name), /^restart: unless-stopped$/m, name);
    assert.match(readStopGracePeriod(name), /^[346]0s$/, name);
  }
});

/** The combinations of Compose files that docs/container.md starts, and all files together. */
function listCompositions(): string[][] {
  const printed = [...PAGE.matchAll(/docker compose((?: --file \S+)+)/g)]
    .map(([, options = ""]) => options.split(" --file ").slice(1));
  const all = ["docker-compose.yml", "monitoring.yml", "replicas.yml"];
  const lists = [["docker-compose.yml"], ...printed, all].map((files) => files.join());
  return [...new Set(lists)].map((files) => files.split(","));
}

Deno.test("docker accepts the Compose files that docs/container.md names", {
  ignore: !await hasDockerCompose(),
}, async () => {
  const compositions = listCompositions();
  assert.equal(compositions.length, 4);
  for (const files of compositions) {
    const options = files.flatMap((file) => ["--file", `${ROOT}/deploy/compose/${file}`]);
    const args = ["compose", ...options, "config", "--quiet"];
    const { code, stdout, stderr } = await runProgram("docker", { args });
    assert.equal(code, 0, `${files}: ${stdout}${stderr}`);
  }
});

async function hasDockerCompose(): Promise<boolean> {
  if (lacks("docker")) return false;
  const { code } = await runProgram("docker", { args: ["compose", "version"] });
  return code === 0 || !leaveOut("Docker has no plugin 'compose' (docker-compose-v2)");
}
