/** The process's environment, with the gaps filled from `.env` in the working directory. */

import { parse } from "dotenv";
import { ConfigError, type Environment } from "./settings.ts";

/**
 * The variables of the environment; those of `.env` where the environment does not set them, or to
 * nothing.
 *
 * @throws {ConfigError} when there is a `.env` that cannot be read.
 */
export function readEnvironment(): Environment {
  const set = Object.entries(Deno.env.toObject()).filter(([, value]) => value !== "");
  return { ...readDotEnv(), ...Object.fromEntries(set) };
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
    return parseDotEnv(Deno.readTextFileSync(".env"));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return {};
    const rule = `is in the working directory but cannot be read (${systemReason(error)})`;
    throw new ConfigError([{ variable: ".env", rule }]);
  }
}

/**
 * A variable's line as dotenv's parser takes it apart: what comes before the value, then a value in
 * quotes, which may have several lines, or one without.
 */
const ENTRY =
  /^(\s*(?:export\s+)?[\w.-]+(?:\s*=\s*?|:\s+?))(?:(\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|\s*`(?:\\`|[^`])*`)(?=\s*(?:#.*)?$)|((?:[^#\r\n]|(?<!\s)#)*))/gm;

/** Stands for '#' while dotenv parses: half of a surrogate pair, which no file's text can hold. */
const HASH = "\ud800";

/**
 * The variables that the text of a `.env` sets. A '#' begins a comment only where whitespace or
 * nothing is before it: dotenv alone would cut `MQTT_TOPIC=lab/#` and half of the passwords.
 */
export function parseDotEnv(text: string): Record<string, string> {
  const marked = text.replace(
    ENTRY,
    (entry: string, name: string, quoted: string | undefined, plain: string | undefined) =>
      quoted === undefined ? `${name}${plain?.replaceAll("#", HASH)}` : entry,
  );
  const values = Object.entries(parse(marked));
  return Object.fromEntries(values.map(([name, value]) => [name, value.replaceAll(HASH, "#")]));
}

/**
 * Deno puts the action and the path around the system's words: keep the words. It has words of its
 * own for devices and the like, which it lets nobody use who may not do everything.
 */
export function systemReason(error: unknown): string {
  if (error instanceof Deno.errors.NotCapable) {
    return "only ordinary files and directories can be used here";
  }
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/ \(os error \d+\).*$/s, "");
}
