/** The command line of the demo. */

import { parseArgs } from "node:util";
import type { Endpoint } from "../lib/common/endpoint.ts";

/** The options of a run. */
export interface Options {
  readonly help: boolean;
  /** The broker of the user; undefined for the embedded one. */
  readonly broker: Endpoint | undefined;
  /** The demo ends after this time; undefined: it runs until Ctrl-C. */
  readonly seconds: number | undefined;
}

export const HELP = `Shows the Kraken logger at work; installs nothing and leaves nothing behind

Usage: deno task demo [OPTION]…

Starts an MQTT broker, a PostgreSQL database in memory, a simulated LabKraken
node, and the logger between them. The node measures nine sensors, eight of them
once a second and one every ten seconds. Every second, the demo shows what the
database has stored. Ctrl-C ends it.

Options:
  --broker HOST[:PORT]  use this MQTT broker instead of the embedded one, without
                        TLS; log in with MQTT_CLIENT_USER and
                        MQTT_CLIENT_PASSWORD if they are set
  --seconds N           end after N seconds
  -h, --help            print this help

Exit status: 0 if every published reading is in the database, 1 otherwise.
`;

const DEFAULT_MQTT_PORT = 1883;

/** The arguments are not valid; the message names the reason. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/**
 * Parses the arguments.
 *
 * @throws {UsageError} for an unknown option or a value that is not valid.
 */
export function parseCommandLine(args: readonly string[]): Options {
  const { help = false, broker, seconds } = parse(args);
  return {
    help,
    broker: broker === undefined ? undefined : parseBroker(broker),
    seconds: seconds === undefined ? undefined : parseSeconds(seconds),
  };
}

function parse(args: readonly string[]): { help?: boolean; broker?: string; seconds?: string } {
  try {
    return parseArgs({
      // npm and others put this between their own options and ours.
      args: args[0] === "--" ? args.slice(1) : [...args],
      options: {
        help: { type: "boolean", short: "h" },
        broker: { type: "string" },
        seconds: { type: "string" },
      },
    }).values;
  } catch (error) {
    // The first sentence names the option; the others are advice about positional arguments.
    const message = error instanceof Error ? error.message : String(error);
    throw new UsageError(message.replace(/\. .*$/s, ""), { cause: error });
  }
}

function parseBroker(text: string): Endpoint {
  const url = URL.parse(`mqtt://${text}`);
  if (
    url === null || url.hostname === "" || url.href !== `mqtt://${url.host}` || url.port === "0"
  ) {
    throw new UsageError(`--broker must be HOST or HOST:PORT, received '${text}'`);
  }
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  return { host, port: url.port === "" ? DEFAULT_MQTT_PORT : Number(url.port) };
}

function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (!/^\d+$/.test(text) || seconds < 1 || seconds > 86_400) {
    throw new UsageError(`--seconds must be an integer from 1 to 86400, received '${text}'`);
  }
  return seconds;
}
