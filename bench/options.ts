/** The command line of the benchmark. */
import { parseArgs } from "node:util";

/** The measurements to run. */
export interface BenchOptions {
  /** Number of messages in the backlog. */
  readonly messages: number;
  /** Also measures the memory with a backlog of a million messages. */
  readonly million: boolean;
  /** Also measures the time from publishing until the row is visible. */
  readonly latency: boolean;
  /** Measures only the cost of the HTTP server. */
  readonly onlyHttp: boolean;
  /** Measures only the drain by several loggers. */
  readonly onlyReplicas: boolean;
  /** Path of a compiled logger; undefined: `KRAKEN_LOGGER_BINARY`, or else the sources. */
  readonly binary: string | undefined;
}

export const HELP = `deno task bench [options]

Measures the logger with its own Mosquitto and PostgreSQL, and prints a table.

  --messages N    messages in the backlog (default 200000)
  --no-million    skip the memory with a backlog of 1,000,000 messages (about 80 s)
  --no-latency    skip the time from publishing until the row is visible (about 40 s)
  --only-http     only the cost of the HTTP server
  --only-replicas only the drain by one to four loggers of a group
  --binary PATH   measure this compiled logger, not the sources (or set KRAKEN_LOGGER_BINARY)
  --help          print this help
`;

/**
 * @returns the options; null for `--help`.
 * @throws {TypeError} when an option is unknown or its value is not allowed.
 */
export function parseOptions(args: readonly string[]): BenchOptions | null {
  const { values } = parseArgs({
    args: [...args],
    options: {
      messages: { type: "string", default: "200000" },
      million: { type: "boolean", default: true },
      latency: { type: "boolean", default: true },
      "only-http": { type: "boolean", default: false },
      "only-replicas": { type: "boolean", default: false },
      binary: { type: "string" },
      help: { type: "boolean", default: false },
    },
    allowNegative: true,
  });
  const messages = Number(values.messages);
  if (!Number.isSafeInteger(messages) || messages < 10_000) {
    throw new TypeError(
      `--messages: must be an integer of at least 10000, received '${values.messages}'`,
    );
  }
  const { million, latency, binary, help } = values;
  return help ? null : {
    messages,
    million,
    latency,
    onlyHttp: values["only-http"],
    onlyReplicas: values["only-replicas"],
    binary,
  };
}
