/**
 * The command line of the benchmark.
 */
import { parseArgs } from "node:util";

/** What is to be measured. */
export interface BenchOptions {
  /** Messages of the backlog. */
  readonly messages: number;
  /** Also measures the memory with a backlog of a million messages. */
  readonly million: boolean;
  /** Also measures the time from publishing to the visible row. */
  readonly latency: boolean;
  /** Measures nothing but what the status page costs. */
  readonly onlyHttp: boolean;
  /** Measures nothing but what several loggers drain together. */
  readonly onlyReplicas: boolean;
  /** The compiled logger; undefined: from the sources, or what `KRAKEN_LOGGER_BINARY` names. */
  readonly binary: string | undefined;
}

export const HELP = `deno task bench [options]

Measures the logger against a Mosquitto and a PostgreSQL of its own, and prints one table.

  --messages N    messages of the backlog (default 200000)
  --no-million    leave out the memory at a backlog of 1,000,000 messages (about 80 s)
  --no-latency    leave out the time from publishing to the visible row (about 40 s)
  --only-http     what the status page costs, and nothing else
  --only-replicas what one, two and four loggers of a group drain, and nothing else
  --binary PATH   measure this compiled logger, not the sources; as KRAKEN_LOGGER_BINARY
  --help          this text
`;

/**
 * @returns the options, or null when help is asked for.
 * @throws {TypeError} naming what is wrong.
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
      `--messages: must be a whole number from 10000 on, received '${values.messages}'`,
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
