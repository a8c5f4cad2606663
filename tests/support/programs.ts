/**
 * Every program that a test starts: its path, its Debian package, and whether CI requires it.
 * `.ci/run` installs the packages that this module lists:
 *
 * ```sh
 * deno run --allow-read --allow-env tests/support/programs.ts --missing-packages
 * deno run --allow-read --allow-env tests/support/programs.ts --installed
 * ```
 *
 * The first prints the packages of the required programs that are missing, the second the paths of
 * all installed programs that a bare Debian does not have.
 */
import { leaveOut } from "./left_out.ts";
import { print } from "./output.ts";

/** The origin of a program. */
interface Source {
  /** The Debian package. */
  readonly package: string;
  /** Folders to search before `PATH`; `*` stands for each folder at that place. */
  readonly folders?: readonly string[];
  /** `true`: if the program is missing, its tests are left out also in CI. */
  readonly isOptional?: boolean;
  /** `true`: every Debian system has it. */
  readonly isEssential?: boolean;
}

const POSTGRES_FOLDERS = ["/usr/lib/postgresql/*/bin"];

const SOURCES = {
  postgres: { package: "postgresql", folders: POSTGRES_FOLDERS },
  initdb: { package: "postgresql", folders: POSTGRES_FOLDERS },
  psql: { package: "postgresql-client" },
  mosquitto: { package: "mosquitto" },
  mosquitto_passwd: { package: "mosquitto" },
  mosquitto_sub: { package: "mosquitto-clients" },
  "rabbitmq-server": { package: "rabbitmq-server", folders: ["/usr/lib/rabbitmq/lib/*/sbin"] },
  // Erlang's name service for nodes; RabbitMQ starts it and does not stop it.
  epmd: { package: "erlang-base" },
  prometheus: { package: "prometheus" },
  promtool: { package: "prometheus" },
  chromium: { package: "chromium" },
  // Sets the clock of a single process.
  "libfaketime.so.1": {
    package: "faketime",
    folders: ["/usr/lib/*/faketime", "/usr/lib64/faketime"],
  },
  openssl: { package: "openssl" },
  // Fetches the compiler of the fallback for `deno task compile`.
  pip3: { package: "python3-pip" },
  // Runs a program in a pseudo-terminal.
  script: { package: "bsdutils", isEssential: true },
  // Verifies the units without starting them.
  "systemd-analyze": { package: "systemd" },
  dpkg: { package: "dpkg", isEssential: true },
  mount: { package: "mount", isEssential: true },
  unshare: { package: "util-linux", isEssential: true },
  docker: { package: "docker.io", isOptional: true },
} satisfies Readonly<Record<string, Source>>;

/** A program that tests start. */
export type ProgramName = keyof typeof SOURCES;

const NAMES = Object.keys(SOURCES) as ProgramName[];
const isCi = Deno.env.get("CI") === "true";
const found = new Map<ProgramName, string | null>();

/** The path of an installed program, or null. */
export function findProgram(name: ProgramName): string | null {
  let path = found.get(name);
  if (path === undefined) {
    [path = null] = searchProgram(name);
    found.set(name, path);
  }
  return path;
}

/**
 * The path of an installed program.
 *
 * @throws {Error} when it is not installed, with the name of its Debian package.
 */
export function requireProgram(name: ProgramName): string {
  return findProgram(name) ?? fail(name);
}

/**
 * Whether a test must be left out because a program is missing, for `ignore`. Call it once for each
 * test, because `tests/run.ts` counts the calls.
 *
 * @throws {Error} in CI, when a required program is missing.
 */
export function lacks(...names: readonly ProgramName[]): boolean {
  const missing = names.find((name) => findProgram(name) === null);
  if (missing === undefined) return false;
  if (isCi && !sourceOf(missing).isOptional) fail(missing);
  return leaveOut(describeMissing(missing));
}

/** Whether the path is a file or a link to a file. */
export function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    // Missing, or in a directory that this user may not enter: it cannot be used in either case.
    return false;
  }
}

function sourceOf(name: ProgramName): Source {
  return SOURCES[name];
}

/** All paths of a program, the one to use first. */
function searchProgram(name: ProgramName): string[] {
  const fromPath = (Deno.env.get("PATH") ?? "").split(":").filter((folder) => folder !== "");
  const special = (sourceOf(name).folders ?? []).flatMap(expandFolder);
  // Debian installs services in folders that are not in the PATH of an ordinary user.
  const folders = [...special, ...fromPath, "/usr/sbin", "/usr/local/sbin"];
  return folders.map((folder) => `${folder}/${name}`).filter(isFile);
}

/** The folders that match a pattern with one `*`, the highest version first. */
function expandFolder(pattern: string): string[] {
  const [parent = "", rest] = pattern.split("/*");
  if (rest === undefined) return [pattern];
  try {
    return [...Deno.readDirSync(parent)].map((entry) => entry.name)
      .sort((a, b) => b.localeCompare(a, "en", { numeric: true }))
      .map((name) => `${parent}/${name}${rest}`);
  } catch {
    return []; // No such folder: not installed.
  }
}

function describeMissing(name: ProgramName): string {
  return `'${name}' is not installed (Debian package ${sourceOf(name).package})`;
}

function fail(name: ProgramName): never {
  throw new Error(`Starting a program of the tests: ${describeMissing(name)}`);
}

function listMissingPackages(): string[] {
  const missing = NAMES.filter((name) => !sourceOf(name).isOptional && findProgram(name) === null);
  return [...new Set(missing.map((name) => sourceOf(name).package))];
}

function listInstalled(): string[] {
  const paths = NAMES.filter((name) => !sourceOf(name).isEssential).flatMap(searchProgram);
  return [...new Set(paths.map((path) => Deno.realPathSync(path)))];
}

if (import.meta.main) {
  const lines = Deno.args[0] === "--installed" ? listInstalled() : listMissingPackages();
  print(lines.map((line) => `${line}\n`).join(""));
}
