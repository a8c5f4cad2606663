/**
 * The documents: their links, and whether the settings, modules, commands, files and tasks in them are
 * those of the program. Other tests run the printed commands.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { dirname, normalize } from "node:path";
import { parse as parseYaml } from "yaml";
import metadata from "../../deno.json" with { type: "json" };
import { HELP as DEMO_HELP } from "../../demo/command_line.ts";
import { createSensors } from "../../demo/sensors.ts";
import { FALLBACK_DENO_VERSION } from "../../deploy/fallback_deno.ts";
import { RUN_FLAGS } from "../../deploy/run_flags.ts";
import { HELP, parseCommandLine } from "../../lib/commands/command_line.ts";
import { parseConfig } from "../../lib/config/config.ts";
import { SETTINGS } from "../../lib/config/setting_names.ts";
import { SECRETS } from "../../lib/config/settings.ts";
import {
  listAnchors,
  listDocuments,
  listLinks,
  readCodeBlocks,
  readCodeSpans,
  readDocument,
  readSection,
  readTableRows,
  ROOT,
  withoutCodeBlocks,
} from "../support/documents.ts";
import { runProgram } from "../support/process.ts";

const DOCUMENTS = listDocuments();
const PAGES = DOCUMENTS.filter((path) => path.startsWith("docs/"));

/** Set by systemd and not by the operator: the default of SPOOL_DIRECTORY. */
const NOT_FOR_OPERATORS = "STATE_DIRECTORY";

/** The differences between an expected and an actual list; both empty if there are none. */
function compare(
  expected: Iterable<string>,
  found: Iterable<string>,
): { missing: string[]; unexpected: string[] } {
  const [expectedSet, foundSet] = [new Set(expected), new Set(found)];
  return {
    missing: [...expectedSet.difference(foundSet)].sort(),
    unexpected: [...foundSet.difference(expectedSet)].sort(),
  };
}

const SAME = { missing: [], unexpected: [] };

/** Why a link of a document is broken; undefined if it is not. */
function findBrokenLink(
  document: string,
  target: string,
  read: (path: string) => string | undefined,
): string | undefined {
  if (/^[a-z]+:/.test(target)) return undefined;
  const [relative = "", anchor] = target.split("#");
  const path = relative === "" ? document : normalize(`${dirname(document)}/${relative}`);
  const text = read(path);
  if (text === undefined) return `${document}: '${path}' does not exist`;
  if (anchor === undefined || listAnchors(text).includes(anchor)) return undefined;
  return `${document}: '${path}' has no heading for '#${anchor}'`;
}

/** The text of a file of the project; empty for a directory, undefined if the path does not exist. */
function readTarget(path: string): string | undefined {
  if (!existsSync(`${ROOT}/${path}`)) return undefined;
  return path.endsWith(".md") ? readDocument(path) : "";
}

Deno.test("every relative link of the documents leads to a file, and every anchor to a heading", () => {
  const links = DOCUMENTS.flatMap((document) =>
    listLinks(readDocument(document)).map((target) => ({ document, target }))
  );
  assert.ok(links.length > 100, `only ${links.length} links found`);
  const broken = links.map(({ document, target }) => findBrokenLink(document, target, readTarget));
  assert.deepEqual(broken.filter((text) => text !== undefined), []);
});

Deno.test("a link to a missing file and one to a missing heading are found", () => {
  const files: Record<string, string> = {
    "docs/a.md": "# A\n\n## `x` /api/y\n\n## Deno's, twice\n\n## Deno's, twice\n",
    "b.md": "[one](docs/a.md#x-apiy) ![two](none.png) [three](docs/a.md#x)",
  };
  const find = (document: string, target: string): string | undefined =>
    findBrokenLink(document, target, (path) => files[path]);
  assert.deepEqual(listLinks(files["b.md"] ?? "").map((target) => find("b.md", target)), [
    undefined,
    "b.md: 'none.png' does not exist",
    "b.md: 'docs/a.md' has no heading for '#x'",
  ]);
  assert.equal(find("docs/a.md", "#denos-twice-1"), undefined);
  assert.equal(find("docs/a.md", "../b.md"), undefined);
  assert.notEqual(find("docs/a.md", "#denos-twice-2"), undefined);
});

Deno.test("the README has at most 120 lines, and the demo is on its first screen", () => {
  const lines = readDocument("README.md").trimEnd().split("\n");
  assert.ok(lines.length <= 120, `${lines.length} lines`);
  const demo = lines.findIndex((line) => /^npx -y deno@[\d.]+ task demo$/.test(line));
  assert.ok(demo > 0 && demo < 25, `line ${demo + 1}`);
  const headings = lines.filter((line) => line.startsWith("## "));
  assert.deepEqual(headings, [
    "## Try it",
    "## Install",
    "## Settings that matter",
    "## When something fails",
    "## Documentation",
    "## License",
  ]);
});

Deno.test("the README lists every page of docs/", () => {
  const links = listLinks(readSection("README.md", "Documentation"));
  assert.ok(PAGES.length > 10);
  assert.deepEqual(compare(PAGES, links.filter((link) => link.startsWith("docs/"))), SAME);
});

interface DocumentedSetting {
  readonly default: string;
  readonly secret: boolean;
}

/** The rows of the table of settings, by variable. */
function readSettingsTable(): Map<string, DocumentedSetting> {
  const rows = readTableRows(readSection("docs/configuration.md", "Settings"));
  return new Map(rows.flatMap(([names = "", defaultText = ""]) => {
    const setting = { default: defaultText, secret: names.includes("_secret_") };
    return [...names.matchAll(/`([A-Z_]+)`/g)].map(([, name = ""]) => [name, setting] as const);
  }));
}

Deno.test("docs/configuration.md describes all settings and no others", () => {
  const documented = readSettingsTable();
  const files: readonly string[] = SECRETS.map((name) => `${name}_FILE`);
  const expected = SETTINGS.filter((name) => !files.includes(name) && name !== NOT_FOR_OPERATORS);
  assert.deepEqual(compare(expected, documented.keys()), SAME);
  const secrets = [...documented].filter(([, { secret }]) => secret).map(([name]) => name);
  assert.deepEqual(compare(SECRETS, secrets), SAME);
});

Deno.test("the documented defaults are those of the program", () => {
  const { database, mqtt, log, http } = parseConfig({
    DATABASE_HOST: "database",
    DATABASE_USER: "user",
    DATABASE_PASSWORD: "secret",
    MQTT_HOST: "broker",
    HTTP_PORT: "8080",
  }, () => "secret\n");
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

Deno.test("no document has a placeholder left", () => {
  for (const path of DOCUMENTS) {
    assert.doesNotMatch(readDocument(path), /\bTIME_[A-Z]+|TODO|TBD/, path);
  }
});

Deno.test("every setting that a document names exists", () => {
  const pattern = /^(?:DATABASE|MQTT|APPLICATION|SPOOL|HTTP)_[A-Z_]+(?=$|=)/;
  for (const path of DOCUMENTS) {
    const names = readCodeSpans(readDocument(path)).map((span) => pattern.exec(span)?.[0])
      .filter((name) => name !== undefined);
    assert.deepEqual(names.filter((name) => !SETTINGS.includes(name)), [], path);
  }
});

/** The texts of the sources in a folder. */
function readSources(folder: string): string[] {
  return listModules(folder).map(readDocument);
}

Deno.test("CONTRIBUTING.md lists all variables of the tests and no others", () => {
  const sources = [...["lib", "tests", "bench"].flatMap(readSources), readDocument(".ci/run")];
  const used = sources.flatMap((text) => text.match(/\bKRAKEN_[A-Z_]+[A-Z]\b/g) ?? []);
  const section = readSection("CONTRIBUTING.md", "Tests");
  const named = readCodeSpans(section).map((span) => /^KRAKEN_\w+/.exec(span)?.[0])
    .filter((name) => name !== undefined);
  assert.deepEqual(compare(used, named).missing, []);
  const offered = readTableRows(section).map(([name = ""]) => /^`(KRAKEN_\w+)=/.exec(name)?.[1])
    .filter((name) => name !== undefined);
  assert.deepEqual(compare(used, offered).unexpected, []);
  assert.ok(offered.length >= 5);
});

Deno.test("the tasks and files that the documents name exist", () => {
  const texts = DOCUMENTS.map((path) => [path, readDocument(path)] as const);
  const tasks = texts.flatMap(([, text]) =>
    [...text.matchAll(/deno(?:@[\d.]+)? task ([a-z]+(?::[a-z]+)?)/g)].map(([, name = ""]) => name)
  );
  assert.ok(tasks.length > 10);
  assert.deepEqual(tasks.filter((task) => !Object.hasOwn(metadata.tasks, task)), []);
  let found = 0;
  for (const [document, text] of texts) {
    const paths = text.matchAll(
      /(?:^|[\s`(])((?:lib|deploy|docs|tests|bench|demo|\.ci|\.github)\/[\w./@-]*[\w/])/gm,
    );
    for (const [, path = ""] of paths) {
      // The operator creates secrets; links are checked as links, relative to their documents.
      if (path.includes("/secrets") || listLinks(text).some((link) => link.startsWith(path))) {
        continue;
      }
      found++;
      assert.ok(existsSync(`${ROOT}/${path}`), `${document}: '${path}' does not exist`);
    }
  }
  assert.ok(found > 50, `only ${found} paths found`);
});

/** The modules below a folder, as paths from the root of the project. */
function listModules(folder: string): string[] {
  return [...Deno.readDirSync(`${ROOT}/${folder}`)].flatMap(({ name, isDirectory }) => {
    const path = `${folder}/${name}`;
    return isDirectory ? listModules(path) : /\.(ts|js)$/.test(name) ? [path] : [];
  });
}

Deno.test("docs/architecture.md lists all modules of lib/ and no others", () => {
  const rows = readTableRows(readSection("docs/architecture.md", "Modules"));
  const listed = rows.map(([module = ""]) => module.replaceAll("`", ""));
  assert.deepEqual(compare(listModules("lib"), listed), SAME);
  assert.equal(listed.length, new Set(listed).size, "a module is listed twice");
  assert.deepEqual(rows.filter(([, purpose]) => !purpose), []);
});

Deno.test("every module that docs/architecture.md names by its folder exists", () => {
  const modules = listModules("lib").map((path) => path.replace("lib/", ""));
  const named = readCodeSpans(readDocument("docs/architecture.md"))
    .filter((span) => /^[a-z_]+\/[\w/]+\.(ts|js)$/.test(span) && !/^(lib|tests)\//.test(span));
  assert.ok(named.length > 30);
  assert.deepEqual(named.filter((name) => !modules.includes(name)), []);
});

Deno.test("docs/architecture.md lists all folders of lib/", () => {
  const rows = readTableRows(readSection("docs/architecture.md", "Folders"));
  const folders = [...Deno.readDirSync(`${ROOT}/lib`)].filter(({ isDirectory, name }) =>
    isDirectory && listModules(`lib/${name}`).length > 0
  );
  const listed = rows.map(([folder = ""]) => folder.replaceAll(/[`/]/g, ""));
  assert.deepEqual(compare(folders.map(({ name }) => name), listed), SAME);
});

Deno.test("each permission of the binary is explained", () => {
  const rows = readTableRows(readSection("docs/install.md", "Permissions of the executable"));
  const explained = rows.map(([flag = ""]) => flag.replaceAll("`", ""));
  const permissions = RUN_FLAGS.filter((flag) => flag.startsWith("--allow-"));
  assert.deepEqual(compare(permissions, explained), SAME);
  assert.ok(metadata.tasks.start.startsWith(`deno run ${RUN_FLAGS.join(" ")} `));
});

/** The packages of the program, the demonstration and the tests. */
function listPackages(): string[] {
  const files = ["deno.json", "demo/deno.json", "tests/deno.json"];
  return files.filter((path) => existsSync(`${ROOT}/${path}`)).flatMap((path) => {
    const { imports = {} } = JSON.parse(readDocument(path)) as {
      imports?: Readonly<Record<string, string>>;
    };
    return Object.keys(imports);
  });
}

Deno.test("docs/dependencies.md lists all packages, and which part imports each", () => {
  const packages = listPackages();
  const listed = readTableRows(readDocument("docs/dependencies.md"))
    .flatMap(([names = ""]) => [...names.matchAll(/`([^`]+)`/g)].map(([, name = ""]) => name));
  assert.deepEqual(compare(packages, listed), SAME);
  const sources = ["main.ts", ...listModules("lib").filter((path) => path.endsWith(".ts"))]
    .map((path) => [path, readDocument(path)] as const);
  const rows = readTableRows(readSection("docs/dependencies.md", "In the executable"));
  const documented = rows.map(([name = "", module = ""]) => [name, module].join());
  const imported = packages.flatMap((name) =>
    sources.filter(([, text]) => new RegExp(`from "${name}["/]`).test(text))
      .map(([path]) => `\`${name}\`,\`${path}\``)
  );
  assert.deepEqual(compare(imported, documented), SAME);
});

Deno.test("the alerts of docs/monitoring.md are the provisioned ones", () => {
  const rows = readTableRows(readSection("docs/monitoring.md", "Grafana and alerts"));
  const { groups } = parseYaml(
    readDocument("deploy/grafana/provisioning/alerting/kraken.yml"),
  ) as { groups: { rules: { title: string }[] }[] };
  const titles = groups.flatMap(({ rules }) => rules.map(({ title }) => title));
  assert.deepEqual(compare(titles, rows.map(([title = ""]) => title)), SAME);
});

/** Programs that take the name of the logger as an argument and do not start it. */
const OTHER_PROGRAMS =
  /^(sudo )?(install|systemctl|journalctl|kubectl|docker (build|buildx|logs))\b/;

/** The commands of the program that a document prints, as arguments. */
function listCommands(path: string): string[][] {
  const text = readDocument(path);
  const lines = readCodeBlocks(text, "sh").join("\n").replaceAll(/\\\n */g, "").split(/\n| \| /);
  const printed = lines.filter((line) => !OTHER_PROGRAMS.test(line))
    .map((line) => /^.*(?<![^\s/])kraken-logger((?: .*)?)$/.exec(line));
  const spans = readCodeSpans(text).map((span) => /^(?:\.\/)?kraken-logger((?: .*)?)$/.exec(span));
  return [...printed, ...spans].filter((match) => match !== null)
    .map(([, args = ""]) =>
      [...args.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, word]) => quoted ?? word ?? "")
    );
}

/** The commands in the help of the program. */
const COMMANDS = [...HELP.matchAll(/^ {2}([a-z]+) +\S/gm)].map(([, name = ""]) => name);

Deno.test("the program understands every command of the documents", () => {
  const commands = DOCUMENTS.flatMap(listCommands);
  assert.ok(commands.length > 30, `only ${commands.length} found`);
  for (const args of commands) {
    assert.doesNotThrow(() => parseCommandLine(args), `kraken-logger ${args.join(" ")}`);
  }
  const used = new Set(commands.map(([name = "run"]) => name));
  const documented = readTableRows(readSection("docs/commands.md"))
    .map(([name = ""]) => /^`([a-z]+)`$/.exec(name)?.[1]).filter((name) => name !== undefined);
  assert.deepEqual(compare(COMMANDS, documented), SAME);
  // The image uses `healthcheck`.
  const shown = [...used, "healthcheck"].filter((name) => !name.startsWith("-"));
  assert.deepEqual(compare(COMMANDS, shown), SAME);
});

Deno.test("every shell command of the documents is well-formed", async () => {
  for (const path of DOCUMENTS) {
    for (const block of readCodeBlocks(readDocument(path), "sh")) {
      const { code, stderr } = await runProgram("/bin/sh", { args: ["-n", "-c", block] });
      assert.equal(code, 0, `${path}: ${stderr}\n${block}`);
    }
  }
});

Deno.test("all files name the same version of Deno, and of the program", () => {
  const [, denoVersion] = /DENO_VERSION=([\d.]+)/.exec(readDocument(".ci/run")) ?? [];
  const dockerfile = readDocument("Dockerfile");
  const images = [...dockerfile.matchAll(/denoland\/deno:(?:distroless-)?([\d.]+)/g)];
  assert.deepEqual(images.map(([, version]) => version), [denoVersion, denoVersion]);
  const named = DOCUMENTS.flatMap((path) =>
    [...readDocument(path).matchAll(/npx -y deno@([\d.]+)|Deno (\d+\.\d+\.\d+) is installed/g)]
      .map(([, used, installed]) => used ?? installed)
  );
  assert.ok(named.length >= 5);
  assert.deepEqual(new Set(named), new Set([denoVersion]));
  const [, label] = /image\.version="([\d.]+)"/.exec(dockerfile) ?? [];
  assert.equal(label, metadata.version);
  assert.ok(readDocument("CHANGELOG.md").includes(`## [${metadata.version}]`));
  const compiling = readSection("docs/install.md", "Compile the executable");
  assert.ok(compiling.includes(`Deno ${FALLBACK_DENO_VERSION}`), "the fallback of 'compile'");
});

Deno.test("the formatter breaks no command of the documents over two lines", () => {
  for (const path of DOCUMENTS) {
    const lines = withoutCodeBlocks(readDocument(path)).split("\n");
    assert.deepEqual(lines.filter((line) => line.split("`").length % 2 === 0), [], path);
  }
});

Deno.test("the help and the picture of the demonstration have its number of sensors", () => {
  const words = ["seven", "eight", "nine", "ten", "eleven"];
  const word = words[createSensors().length - 7] ?? assert.fail("needs another word");
  assert.ok(DEMO_HELP.includes(`measures ${word} sensors`));
  assert.ok(readDocument("README.md").includes(`a table of ${word} sensors`));
});
