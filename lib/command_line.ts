/** The command line: what may be asked for, and the help that says so. */

import { parseArgs } from "node:util";

/** What the user asked for. */
export type Command =
  | { readonly name: "run" | "check" | "help" | "version" }
  | { readonly name: "schema" | "init"; readonly timescale: boolean; readonly grant?: string };

export const HELP =
  `kraken-logger: stores LabKraken sensor readings from MQTT in PostgreSQL or TimescaleDB

Usage: kraken-logger [COMMAND] [OPTION]…

Commands:
  run      carry readings from the broker to the database until told to stop (default)
  check    examine configuration, broker, database, privileges and schema; say what to do
  schema   print the SQL that creates the tables
  init     create the tables in the configured database; may be run again

Options:
  --timescale    schema, init: make sensor_data a TimescaleDB hypertable
  --grant ROLE   schema, init: give ROLE the privileges that the logger needs
  -h, --help     print this help
  -V, --version  print the version

The configuration comes from environment variables and from .env in the working directory.
At least DATABASE_HOST, DATABASE_USER, DATABASE_PASSWORD and MQTT_HOST must be set, and
MQTT_CLIENT_ID should be: without it, messages are lost while the logger is away.

Exit status: 0 success, 1 failure, 78 configuration error.
`;

/** The arguments make no sense; the message says why. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/**
 * Reads the arguments.
 *
 * @throws {UsageError} for an unknown command or option.
 */
export function parseCommandLine(args: readonly string[]): Command {
  const { values, positionals } = parse(args);
  if (values.help) return { name: "help" };
  if (values.version) return { name: "version" };
  const [name = "run", ...rest] = positionals;
  if (rest.length > 0) throw new UsageError(`unexpected argument '${rest[0]}'`);
  switch (name) {
    case "schema":
    case "init":
      return {
        name,
        timescale: values.timescale ?? false,
        ...(values.grant !== undefined && { grant: values.grant }),
      };
    case "help":
      return { name: "help" };
    case "run":
    case "check":
      if (values.timescale || values.grant !== undefined) {
        throw new UsageError(`--timescale and --grant do not go with '${name}'`);
      }
      return { name };
    default:
      throw new UsageError(`unknown command '${name}'`);
  }
}

function parse(args: readonly string[]): {
  values: { help?: boolean; version?: boolean; timescale?: boolean; grant?: string };
  positionals: string[];
} {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        help: { type: "boolean", short: "h" },
        version: { type: "boolean", short: "V" },
        timescale: { type: "boolean" },
        grant: { type: "string" },
      },
    });
  } catch (error) {
    // The first sentence names the option; what follows is advice about positional arguments.
    const message = error instanceof Error ? error.message : String(error);
    const sentence = message.replace(/\.\s.*$/s, "");
    throw new UsageError(sentence.replace(/^[A-Z]/, (letter) => letter.toLowerCase()), {
      cause: error,
    });
  }
}
