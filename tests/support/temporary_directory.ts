/** A temporary directory for a test. */

/** Removed at disposal, with everything in it. */
export interface TemporaryDirectory extends Disposable {
  readonly path: string;
}

/** Makes a directory that any user may enter. */
export function withTemporaryDirectory(): TemporaryDirectory {
  const path = Deno.makeTempDirSync({ prefix: "kraken-test-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}
