/**
 * Prints the software bill of materials of the binary, as CycloneDX JSON: Deno, and the npm packages
 * that the program imports, directly or not, with the checksums of `deno.lock`.
 */
import { Buffer } from "node:buffer";
import { Enums, Models, Serialize, Spec } from "@cyclonedx/cyclonedx-library";
import metadata from "../deno.json" with { type: "json" };

/** The parts of the output of `deno info --json` that are used. */
interface ModuleGraph {
  readonly modules: readonly {
    readonly npmPackage?: string;
    readonly dependencies?: readonly { readonly code?: { readonly specifier?: string } }[];
    readonly specifier: string;
  }[];
  /** Maps the specifiers of imports to those of modules. */
  readonly redirects: Readonly<Record<string, string>>;
  readonly npmPackages: Readonly<Record<string, NpmPackage>>;
}

interface NpmPackage {
  readonly name: string;
  readonly version: string;
  /** Keys in `npmPackages`, as in the lock file. */
  readonly dependencies: readonly string[];
}

interface LockFile {
  readonly npm: Readonly<Record<string, { readonly integrity: string }>>;
}

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname);

async function readGraph(): Promise<ModuleGraph> {
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", "main.ts"],
    cwd: ROOT,
    stderr: "inherit",
  }).output();
  if (!success) throw new Error("Reading the modules of 'main.ts': deno info failed");
  return JSON.parse(new TextDecoder().decode(stdout)) as ModuleGraph;
}

/** The imported packages and their dependencies, as keys of `npmPackages`. */
function findReachable({ modules, redirects, npmPackages }: ModuleGraph): string[] {
  // An import of types has no code.
  const specifiers = new Set(
    modules.flatMap(({ dependencies = [] }) =>
      dependencies.map(({ code }) => redirects[code?.specifier ?? ""] ?? code?.specifier)
    ),
  );
  const found = new Set<string>();
  const queue = modules.filter(({ specifier }) => specifiers.has(specifier))
    .flatMap(({ npmPackage = [] }) => npmPackage);
  for (const key of queue) {
    if (found.has(key)) continue;
    found.add(key);
    queue.push(...npmPackages[key]?.dependencies ?? []);
  }
  return [...found].sort();
}

function describePackage({ name, version }: NpmPackage, integrity: string): Models.Component {
  const [scope, base = ""] = name.startsWith("@") ? name.split("/") : [undefined, name];
  const path = scope === undefined ? base : `${encodeURIComponent(scope)}/${base}`;
  const purl = `pkg:npm/${path}@${version}`;
  return new Models.Component(Enums.ComponentType.Library, base, {
    ...(scope !== undefined && { group: scope }),
    version,
    purl,
    bomRef: purl,
    hashes: new Models.HashDictionary([[
      Enums.HashAlgorithm["SHA-512"],
      Buffer.from(integrity.replace(/^sha512-/, ""), "base64").toString("hex"),
    ]]),
  });
}

function createBom(graph: ModuleGraph, lock: LockFile): Models.Bom {
  const bom = new Models.Bom();
  const program = new Models.Component(Enums.ComponentType.Application, "kraken-logger", {
    version: metadata.version,
    bomRef: "kraken-logger",
    licenses: new Models.LicenseRepository([new Models.SpdxLicense(metadata.license)]),
  });
  const deno = new Models.Component(Enums.ComponentType.Platform, "deno", {
    version: Deno.version.deno,
    bomRef: "deno",
  });
  bom.metadata.component = program;
  bom.components.add(deno);
  program.dependencies.add(deno.bomRef);
  for (const key of findReachable(graph)) {
    const entry = graph.npmPackages[key];
    const integrity = lock.npm[key]?.integrity;
    if (entry === undefined || integrity === undefined) {
      throw new Error(`Listing the packages: '${key}' is not in deno.lock with its checksum`);
    }
    const component = describePackage(entry, integrity);
    bom.components.add(component);
    program.dependencies.add(component.bomRef);
  }
  return bom;
}

if (import.meta.main) {
  const lock = JSON.parse(Deno.readTextFileSync(`${ROOT}/deno.lock`)) as LockFile;
  const serializer = new Serialize.JsonSerializer(
    new Serialize.JSON.Normalize.Factory(Spec.Spec1dot6),
  );
  const text = serializer.serialize(createBom(await readGraph(), lock), {
    sortLists: true,
    space: 2,
  });
  Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
}
