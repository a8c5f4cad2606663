/**
 * The user that a service runs as. PostgreSQL refuses to run as root, but tests in a container
 * usually do.
 */

/** A numeric user and group to start a child process as. */
export interface ServiceUser {
  readonly uid: number;
  readonly gid: number;
}

const NOBODY: ServiceUser = { uid: 65_534, gid: 65_534 };

/**
 * The first of the named users that exists, to run a service as it instead of root.
 *
 * @returns null if the tests do not run as root: then services run as the same user.
 */
export function findServiceUser(names: readonly string[]): ServiceUser | null {
  if (Deno.uid() !== 0) {
    return null;
  }
  const accounts = readAccounts();
  const name = [...names, "nobody"].find((candidate) => accounts.has(candidate));
  return name === undefined ? NOBODY : accounts.get(name) ?? NOBODY;
}

/**
 * Creates a temporary directory that the service can reach and write to. The caller removes it.
 *
 * @param parent the parent directory; by default the system's directory for temporary files.
 */
export function makeServiceDirectory(user: ServiceUser | null, parent?: string): string {
  const options = { prefix: "kraken-test-" };
  const path = Deno.makeTempDirSync(parent === undefined ? options : { ...options, dir: parent });
  Deno.chmodSync(path, 0o755);
  giveTo(user, path);
  return path;
}

/** Writes a file that only the service can read, as PostgreSQL requires for key files. */
export function writePrivateFile(user: ServiceUser | null, path: string, content: string): void {
  Deno.writeTextFileSync(path, content);
  Deno.chmodSync(path, 0o600);
  giveTo(user, path);
}

function giveTo(user: ServiceUser | null, path: string): void {
  if (user !== null) {
    Deno.chownSync(path, user.uid, user.gid);
  }
}

function readAccounts(): Map<string, ServiceUser> {
  const accounts = new Map<string, ServiceUser>();
  for (const line of Deno.readTextFileSync("/etc/passwd").split("\n")) {
    const [name, , uid, gid] = line.split(":");
    if (name && uid && gid) {
      accounts.set(name, { uid: Number(uid), gid: Number(gid) });
    }
  }
  return accounts;
}
