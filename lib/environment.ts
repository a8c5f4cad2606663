/** The process's environment, with the gaps filled from `.env` in the working directory. */

import { parse } from "dotenv";
import { ConfigError, type Environment } from "./settings.ts";

/**
 * The variables of the environment; those of `.env` where the environment does not set them.
 *
 * @throws {ConfigError} when there is a `.env` that cannot be read.
 */
export function readEnvironment(): Environment {
  return { ...readDotEnv(), ...Deno.env.toObject() };
}

/** The text of a file, for `parseConfig`. Throws the system's error, in the system's words. */
export function readTextFile(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    throw new Error(systemReason(error), { cause: error });
  }
}

function readDotEnv(): Environment {
  try {
    return parse(Deno.readTextFileSync(".env"));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return {};
    const rule = `is in the working directory but cannot be read (${systemReason(error)})`;
    throw new ConfigError([{ variable: ".env", rule }]);
  }
}

/** Deno puts the action and the path around the system's words: keep the words. */
export function systemReason(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/ \(os error \d+\).*$/s, "");
}
