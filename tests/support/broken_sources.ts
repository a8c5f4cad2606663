/**
 * Copies of the program's sources with a deliberate defect, to show that a test fails on it.
 */
import { cpSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { leaveOut } from "./left_out.ts";

/** Whether the tests run the sources, and not a compiled binary, which cannot be patched. */
const hasSources: boolean = !Deno.env.get("KRAKEN_LOGGER_BINARY");

/** Whether a test must be left out because it patches the sources, for `ignore`. */
export function lacksSources(): boolean {
  return !hasSources && leaveOut("KRAKEN_LOGGER_BINARY is set, and a binary cannot be patched");
}

/** One replacement in one file of the sources. */
export interface Breakage {
  /** Path from the root of the project. */
  readonly file: string;
  /** Must occur exactly once. */
  readonly find: string;
  readonly replace: string;
}

/** A message is acknowledged on arrival, before it is committed or spooled. */
export const ACKNOWLEDGED_BEFORE_COMMIT: readonly Breakage[] = [{
  file: "lib/mqtt/acknowledgement_queue.ts",
  find: "delivery.onSafe = () => this.#markSafe(delivery, owed);",
  replace: "this.#markSafe(delivery, owed);",
}];

/** A message that goes to the spool is acknowledged before it is written to the disk. */
export const ACKNOWLEDGED_BEFORE_DISK: readonly Breakage[] = [{
  file: "lib/pipeline/overflow.ts",
  find: "if (!this.#attempt(() => this.#spool.append(deliveries), nowMs)) return;",
  replace: "setTimeout(() => this.#spool.append(deliveries), 60_000);",
}];

/** A copy of the sources, removed at disposal. */
export interface BrokenSources extends Disposable {
  readonly path: string;
}

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Copies the files of the program, and breaks the copy.
 *
 * @throws {Error} when the text to replace does not occur exactly once: then the sources have
 * changed, and the counter-test must be adapted.
 */
export function breakSources(breakages: readonly Breakage[]): BrokenSources {
  const path = Deno.makeTempDirSync({ prefix: "kraken-test-" });
  try {
    for (const name of ["main.ts", "deno.json", "deno.lock"]) {
      Deno.copyFileSync(`${ROOT}${name}`, `${path}/${name}`);
    }
    cpSync(`${ROOT}lib`, `${path}/lib`, { recursive: true });
    for (const { file, find, replace } of breakages) {
      const parts = Deno.readTextFileSync(`${path}/${file}`).split(find);
      if (parts.length !== 2) {
        throw new Error(
          `Breaking '${file}': '${find}' must occur once, occurs ${parts.length - 1} times`,
        );
      }
      Deno.writeTextFileSync(`${path}/${file}`, parts.join(replace));
    }
  } catch (error) {
    Deno.removeSync(path, { recursive: true });
    throw error;
  }
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}
