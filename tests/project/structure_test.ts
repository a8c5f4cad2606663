/**
 * The structure of `lib/`: what each folder may import, and that the imports have no cycle. The table
 * is the one of `docs/architecture.md`.
 */
import assert from "node:assert/strict";
import { dirname, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");

/** What a part of the program may import: code and types, or only types. */
interface Permission {
  readonly code: readonly string[];
  readonly types?: readonly string[];
}

const BASE = ["common", "message", "config"] as const;

/** The folders of `lib/`, and the two files that join them; each may import itself. */
const ALLOWED: Readonly<Record<string, Permission>> = {
  common: { code: [] },
  message: { code: ["common"] },
  config: { code: ["common", "message"] },
  mqtt: { code: [...BASE] },
  database: { code: [...BASE] },
  spool: { code: [...BASE] },
  pipeline: { code: [...BASE, "database", "spool"] },
  monitoring: { code: [...BASE, "database", "spool", "pipeline"], types: ["mqtt"] },
  http: { code: [...BASE, "monitoring"] },
  commands: {
    code: [...BASE, "mqtt", "database", "spool"],
    types: ["pipeline", "monitoring", "http"],
  },
  "logger.ts": {
    code: [...BASE, "mqtt", "database", "spool", "pipeline", "monitoring", "http"],
  },
  "main.ts": {
    code: [
      ...[...BASE, "mqtt", "database", "spool", "pipeline", "monitoring", "http"],
      ...["commands", "logger.ts"],
    ],
  },
};

/** One import of one file, by paths from the root of the project. */
interface Import {
  readonly from: string;
  readonly to: string;
  /** Whether the import is only of types. */
  readonly typeOnly: boolean;
}

const IMPORT =
  /\b(?:import|export)\s+(type\s+)?(?:([\w*{}\s,]+?)\s+from\s+)?["'](\.{1,2}\/[^"']+)["']/g;
const DYNAMIC_IMPORT = /\bimport\s*\(\s*["'](\.{1,2}\/[^"']+)["']/g;

/** The imports of a module that name files of the project. */
function importsOf(path: string, text: string): Import[] {
  const resolve = (specifier: string): string => normalize(`${dirname(path)}/${specifier}`);
  const isTypeOnly = (type: string | undefined, names: string | undefined): boolean =>
    type !== undefined ||
    (names !== undefined && /^\{.*\}$/s.test(names.trim()) &&
      names.replaceAll(/[{}\s]/g, " ").split(",").map((name) => name.trim()).filter(Boolean)
        .every((name) => name.startsWith("type ")));
  return [
    ...[...text.matchAll(IMPORT)].map(([, type, names, specifier = ""]) => ({
      from: path,
      to: resolve(specifier),
      typeOnly: isTypeOnly(type, names),
    })),
    ...[...text.matchAll(DYNAMIC_IMPORT)].map(([, specifier = ""]) => ({
      from: path,
      to: resolve(specifier),
      typeOnly: false,
    })),
  ];
}

/** The part of the program that a file belongs to; undefined outside `lib/` and `main.ts`. */
function partOf(path: string): string | undefined {
  return path === "main.ts" ? path : /^lib\/([^/]+)/.exec(path)?.[1];
}

/** Why an import is not allowed; undefined if it is. */
function violation({ from, to, typeOnly }: Import): string | undefined {
  const [fromPart, toPart] = [partOf(from), partOf(to)];
  if (fromPart === undefined || toPart === undefined || fromPart === toPart) return undefined;
  const permission = ALLOWED[fromPart];
  if (permission === undefined) return `${from}: '${fromPart}' is not in the table`;
  if (permission.code.includes(toPart)) return undefined;
  if (typeOnly && permission.types?.includes(toPart)) return undefined;
  return `${from} imports ${to}: '${fromPart}' must not import '${toPart}'`;
}

/** The first cycle of imports, as paths that each import the next; types count, too. */
function findCycle(imports: readonly Import[]): string[] | undefined {
  const targets = new Map<string, string[]>();
  for (const { from, to } of imports) targets.set(from, [...targets.get(from) ?? [], to]);
  const done = new Set<string>();
  const visit = (path: string, trail: readonly string[]): string[] | undefined => {
    if (trail.includes(path)) return [...trail.slice(trail.indexOf(path)), path];
    if (done.has(path)) return undefined;
    for (const target of targets.get(path) ?? []) {
      const cycle = visit(target, [...trail, path]);
      if (cycle !== undefined) return cycle;
    }
    done.add(path);
    return undefined;
  };
  for (const path of targets.keys()) {
    const cycle = visit(path, []);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

/** The modules below a folder, as paths from the root of the project. */
function listModules(folder: string): string[] {
  return [...Deno.readDirSync(`${ROOT}/${folder}`)].flatMap(({ name, isDirectory }) => {
    const path = `${folder}/${name}`;
    return isDirectory ? listModules(path) : /\.(ts|js)$/.test(name) ? [path] : [];
  });
}

const MODULES = ["main.ts", ...listModules("lib")];
const read = (path: string): string => Deno.readTextFileSync(`${ROOT}/${path}`);
const IMPORTS = MODULES.flatMap((path) => importsOf(path, read(path)));

Deno.test("every import of lib/ follows the direction of the folders", () => {
  assert.ok(IMPORTS.length > 200, `only ${IMPORTS.length} imports found`);
  assert.deepEqual(IMPORTS.map(violation).filter((text) => text !== undefined), []);
});

Deno.test("the imports of lib/ have no cycle", () => {
  assert.equal(findCycle(IMPORTS), undefined);
});

Deno.test("every file that is imported exists, and every folder of lib/ has its rule", () => {
  for (const { from, to } of IMPORTS) assert.ok(Deno.statSync(`${ROOT}/${to}`).isFile, from);
  const parts = new Set(MODULES.map(partOf));
  assert.deepEqual([...parts].sort(), Object.keys(ALLOWED).sort());
});

Deno.test("a forbidden direction, a type in the wrong place and a cycle are found", () => {
  const found = (path: string, text: string): string[] =>
    importsOf(path, text).map(violation).filter((found) => found !== undefined);
  assert.equal(found("lib/mqtt/a.ts", 'import { b } from "../spool/b.ts";').length, 1);
  assert.equal(found("lib/mqtt/a.ts", 'import type { B } from "../spool/b.ts";').length, 1);
  assert.equal(found("lib/spool/a.ts", 'export { b } from "../database/b.ts";').length, 1);
  assert.equal(found("lib/common/a.ts", 'import "../message/b.ts";').length, 1);
  assert.equal(found("lib/common/a.ts", 'await import("../message/b.ts");').length, 1);
  assert.equal(found("lib/monitoring/a.ts", 'import { type B, c } from "../mqtt/b.ts";').length, 1);
  assert.equal(found("lib/monitoring/a.ts", 'import { type B } from "../mqtt/b.ts";').length, 0);
  assert.equal(found("lib/monitoring/a.ts", 'import type { B } from "../mqtt/b.ts";').length, 0);
  assert.equal(found("lib/logger.ts", 'import { B } from "./commands/b.ts";').length, 1);
  const cycle = [
    ...importsOf("lib/common/a.ts", 'import { b } from "./b.ts";'),
    ...importsOf("lib/common/b.ts", 'import type { A } from "./a.ts";'),
  ];
  assert.deepEqual(findCycle(cycle), ["lib/common/a.ts", "lib/common/b.ts", "lib/common/a.ts"]);
});

/** What a module exports: the names of its declarations and of its lists of exports. */
function exportsOf(text: string): string[] {
  const declared = text.matchAll(
    /^export (?:abstract |async |declare )*(?:class|function\*?|const|let|interface|type|enum) (\w+)/gm,
  );
  return [...declared].map(([, name = ""]) => name);
}

Deno.test("no two modules of lib/ export the same name", () => {
  const owners = new Map<string, string[]>();
  for (const path of MODULES.filter((path) => path.endsWith(".ts"))) {
    for (const name of exportsOf(read(path))) {
      owners.set(name, [...owners.get(name) ?? [], path]);
    }
  }
  assert.ok(owners.size > 150, `only ${owners.size} exports found`);
  assert.deepEqual([...owners].filter(([, paths]) => paths.length > 1), []);
});

Deno.test("no file of lib/ repeats its folder's name, except as the folder's main module", () => {
  const repeated = MODULES.filter((path) => {
    const [, folder = "", name = ""] = /([^/]+)\/([^/]+)\.\w+$/.exec(path) ?? [];
    return name !== folder && new RegExp(`(^|_)${folder}(_|$)`).test(name);
  });
  assert.deepEqual(repeated, []);
});
