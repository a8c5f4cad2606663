/**
 * Copies the program with only the modules that it imports.
 *
 * `deno compile` embeds every npm package that the lock file names, even one that the program does
 * not import, such as those of `deploy/`. So it compiles in a separate directory, which contains the
 * modules that `main.ts` imports, directly or not, a `deno.json` with their imports, and the lock
 * file.
 */

/** One import of a module, as `deno info --json` describes it. */
interface Dependency {
  readonly specifier: string;
  /** Missing if only types are imported. */
  readonly code?: { readonly specifier?: string; readonly error?: string };
}

interface ModuleGraph {
  readonly modules: readonly {
    readonly specifier: string;
    readonly kind?: string;
    readonly error?: string;
    readonly dependencies?: readonly Dependency[];
  }[];
  readonly npmPackages: Readonly<
    Record<string, { readonly name: string; readonly localPath: string }>
  >;
}

/**
 * Directories of packages that the compiler must not read. The one of `bintrees` has a list of 100,000
 * numbers in a file without extension, which the compiler takes for a program; parsing it overflows
 * the stack.
 */
const EXCLUDED: readonly (readonly [name: string, directory: string])[] = [["bintrees", "test"]];

interface DenoConfig {
  readonly imports?: Readonly<Record<string, string>>;
  readonly [key: string]: unknown;
}

interface LockFile {
  readonly npm?: Readonly<Record<string, { readonly integrity?: string }>>;
}

/**
 * Copies the modules that an entry point imports, directly or not. Returns the paths that the compiler
 * must exclude from the imported packages.
 *
 * @param root directory of the project, with `deno.json`, `deno.lock` and the entry point.
 * @throws {Error} when a module cannot be found or is outside the project.
 */
export async function copyModules(
  root: string,
  { entry, target }: { readonly entry: string; readonly target: string },
): Promise<string[]> {
  const graph = await readGraph(root, entry);
  const config = JSON.parse(Deno.readTextFileSync(`${root}/deno.json`)) as DenoConfig;
  const used = new Set<string>();
  for (const { specifier, error, dependencies = [] } of graph.modules) {
    if (error !== undefined) {
      throw new Error(`Reading the modules of '${entry}': ${error}`);
    }
    dependencies.filter((dependency) => dependency.code !== undefined)
      .forEach((dependency) => used.add(dependency.specifier));
    if (specifier.startsWith("file:")) {
      copyFile(decodeURIComponent(new URL(specifier).pathname), { root, target });
    }
  }
  const imports = Object.entries(config.imports ?? {})
    .filter(([name]) => [...used].some((one) => one === name || one.startsWith(`${name}/`)));
  // The executable does not need the tasks and the rules for linting.
  const { tasks: _tasks, lint: _lint, fmt: _fmt, ...rest } = config;
  const reduced = { ...rest, imports: Object.fromEntries(imports) };
  Deno.writeTextFileSync(`${target}/deno.json`, JSON.stringify(reduced, null, 2) + "\n");
  Deno.copyFileSync(`${root}/deno.lock`, `${target}/deno.lock`);
  return EXCLUDED.flatMap(([name, directory]) =>
    Object.values(graph.npmPackages).filter((one) => one.name === name)
      .map(({ localPath }) => `${localPath}/${directory}`)
  );
}

/**
 * Checks that compiling has used only packages of the project's lock file. (`--frozen` cannot be used:
 * Deno removes the packages that the reduced `deno.json` does not import from the copy of the lock
 * file.)
 *
 * @throws {Error} naming the packages that the project's lock file does not pin.
 */
export function checkLock(root: string, target: string): void {
  const pinned = readLock(root);
  const other = Object.entries(readLock(target))
    .filter(([name, { integrity }]) => pinned[name]?.integrity !== integrity)
    .map(([name]) => name);
  if (other.length > 0) {
    throw new Error(`Compiling: not pinned by deno.lock: ${other.join(", ")}`);
  }
}

function readLock(folder: string): NonNullable<LockFile["npm"]> {
  return (JSON.parse(Deno.readTextFileSync(`${folder}/deno.lock`)) as LockFile).npm ?? {};
}

async function readGraph(root: string, entry: string): Promise<ModuleGraph> {
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", entry],
    cwd: root,
    stderr: "inherit",
  }).output();
  if (!success) {
    throw new Error(`Reading the modules of '${entry}': deno info failed`);
  }
  return JSON.parse(new TextDecoder().decode(stdout)) as ModuleGraph;
}

function copyFile(
  path: string,
  { root, target }: { readonly root: string; readonly target: string },
): void {
  if (!path.startsWith(`${root}/`)) {
    throw new Error(`Copying the modules: '${path}' is not below '${root}'`);
  }
  const copy = target + path.slice(root.length);
  Deno.mkdirSync(copy.slice(0, copy.lastIndexOf("/")), { recursive: true });
  Deno.copyFileSync(path, copy);
}
