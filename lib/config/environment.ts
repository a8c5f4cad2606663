/** The environment of the process, completed from `.env` in the working directory. */

import { parse } from "dotenv";
import { ConfigError, type Environment } from "./settings.ts";

/**
 * Reads the variables of the environment, and from `.env` those that the environment does not set or
 * sets to the empty string.
 *
 * @throws {ConfigError} when `.env` exists but cannot be read.
 */
export function readEnvironment(): Environment {
  const set = Object.entries(Deno.env.toObject()).filter(([, value]) => value !== "");
  return { ...readDotEnv(), ...Object.fromEntries(set) };
}

/**
 * Reads a text file, for `parseConfig`.
 *
 * @throws {Error} when it cannot be read; the message is the text of the system.
 */
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
    const rule = `exists in the working directory but cannot be read (${systemReason(error)})`;
    throw new ConfigError([{ variable: ".env", rule }]);
  }
}

/**
 * A variable's line, split as by dotenv's parser: the part before the value, then a quoted value,
 * which may span several lines, or an unquoted one.
 */
const ENTRY =
  /^(\s*(?:export\s+)?[\w.-]+(?:\s*=\s*?|:\s+?))(?:(\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|\s*`(?:\\`|[^`])*`)(?=\s*(?:#.*)?$)|((?:[^#\r\n]|(?<!\s)#)*))/gm;

/** Replaces '#' while dotenv parses: a lone surrogate, which decoded text never contains. */
const HASH = "\ud800";

/**
 * Parses the text of a `.env`. A '#' starts a comment only at the start of a line or after white
 * space: dotenv alone would truncate `MQTT_TOPIC=lab/#`, and passwords with a '#'.
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
 * The system's text for an error, without the action and the path that Deno adds. Deno refuses
 * device files and the like unless all permissions are granted; that error gets a separate text.
 */
export function systemReason(error: unknown): string {
  if (error instanceof Deno.errors.NotCapable) {
    return "only ordinary files and directories can be used here";
  }
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/ \(os error \d+\).*$/s, "");
}
