/**
 * The three Deno configurations: `deno task` installs all packages of the lock file beside
 * `deno.json`, so the packages that only the demo or the tests need have their own configurations.
 * These tests keep the three consistent.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { runSuccessfully } from "../support/process.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

interface Configuration {
  readonly imports: Readonly<Record<string, string>>;
  readonly allowScripts?: { readonly deny: readonly string[] };
  readonly [name: string]: unknown;
}

interface Lock {
  readonly npm: Readonly<
    Record<string, { readonly integrity: string; readonly scripts?: boolean }>
  >;
}

function readJson<T>(path: string): T {
  return JSON.parse(Deno.readTextFileSync(`${ROOT}${path}`)) as T;
}

const PROGRAM = readJson<Configuration>("deno.json");
const DEMO = readJson<Configuration>("demo/deno.json");
const TESTS = readJson<Configuration>("tests/deno.json");

Deno.test("the configurations of demo and tests have the settings of the program", () => {
  const settings = ["nodeModulesDir", "lock", "unstable", "compilerOptions", "fmt", "lint"];
  for (const name of settings) {
    assert.ok(PROGRAM[name], name);
    assert.deepEqual(DEMO[name], PROGRAM[name], `${name} of the demo`);
    assert.deepEqual(TESTS[name], PROGRAM[name], `${name} of the tests`);
  }
  const known = [...settings, "imports", "allowScripts"];
  for (const configuration of [DEMO, TESTS]) {
    assert.deepEqual(Object.keys(configuration).filter((name) => !known.includes(name)), []);
  }
});

Deno.test("the tests use the package versions of the program and of the demo", () => {
  for (const { imports } of [PROGRAM, DEMO]) {
    for (const [name, specifier] of Object.entries(imports)) {
      assert.equal(specifier, TESTS.imports[name], name);
    }
  }
  const tests = readJson<Lock>("tests/deno.lock").npm;
  for (const path of ["deno.lock", "demo/deno.lock"]) {
    const packages = Object.entries(readJson<Lock>(path).npm);
    assert.ok(packages.length > 10, path);
    for (const [name, { integrity }] of packages) {
      assert.equal(integrity, tests[name]?.integrity, `${name} of ${path}`);
    }
  }
});

interface Graph {
  readonly modules: readonly {
    readonly dependencies?: readonly { readonly specifier: string; readonly code?: unknown }[];
  }[];
}

/** The packages that a program imports when it runs, by their names in the configuration. */
async function listImported(entry: string, config: string): Promise<Set<string>> {
  const args = ["info", "--json", "--config", `${ROOT}${config}`, `${ROOT}${entry}`];
  const { modules } = JSON.parse(await runSuccessfully(Deno.execPath(), { args })) as Graph;
  const specifiers = modules.flatMap(({ dependencies = [] }) => dependencies)
    .filter(({ code }) => code !== undefined).map(({ specifier }) => specifier)
    .filter((specifier) => !/^(?:[./]|node:|file:)/.test(specifier));
  return new Set(
    specifiers.map((specifier) => /^(?:@[^/]+\/)?[^/]+/.exec(specifier)?.[0] ?? specifier),
  );
}

Deno.test("the program and the demo install the packages that they import and no others", async () => {
  // `deno task compile` runs with the configuration of the program.
  const entries = {
    "deno.json": ["main.ts", "deploy/compile.ts"],
    "demo/deno.json": ["demo/main.ts"],
  };
  for (const [config, paths] of Object.entries(entries)) {
    const lists = await Promise.all(paths.map((path) => listImported(path, config)));
    const imported = new Set(lists.flatMap((list) => [...list]));
    const { imports } = readJson<Configuration>(config);
    // `deno check` and editors need the types.
    const listed = Object.keys(imports).filter((name) => !name.startsWith("@types/"));
    assert.deepEqual(listed.toSorted(), [...imported].toSorted(), config);
  }
});

Deno.test("no package has a build script that Deno warns about", () => {
  const configurations: [string, Configuration][] = [
    ["deno.lock", PROGRAM],
    ["demo/deno.lock", DEMO],
    ["tests/deno.lock", TESTS],
  ];
  for (const [path, { allowScripts }] of configurations) {
    const packages = Object.entries(readJson<Lock>(path).npm);
    const withScripts = packages.filter(([, { scripts }]) => scripts === true);
    // With their versions: a constraint without one excludes prereleases.
    const denied = allowScripts?.deny ?? [];
    assert.deepEqual(withScripts.map(([name]) => `npm:${name}`), denied, path);
  }
});
