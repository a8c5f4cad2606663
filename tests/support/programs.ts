/**
 * Where the programs of the services are.
 */

/**
 * Looks for an installed program, first in `PATH`, then in the directories in which Debian keeps
 * programs that users do not call.
 *
 * @returns its path, or null.
 */
export function findProgram(name: string, extra: readonly string[] = []): string | null {
  const fromPath = (Deno.env.get("PATH") ?? "").split(":").filter((folder) => folder !== "");
  const folder = [...extra, ...fromPath, "/usr/sbin", "/usr/local/sbin"]
    .find((candidate) => isFile(`${candidate}/${name}`));
  return folder === undefined ? null : `${folder}/${name}`;
}

/** Says whether there is a file, or a link to one, at the path. */
export function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    // Not there, or in a directory that this user may not enter: no use either way.
    return false;
  }
}
