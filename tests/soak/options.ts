/** The command line of the soak. */
import { parseArgs } from "node:util";
import { KINDS } from "./faults.ts";

/** The parameters of the soak. */
export interface SoakOptions {
  /** How long faults are injected; longer if some kind was not injected by then. */
  readonly minutes: number;
  /** Determines the schedule of the faults and the readings. */
  readonly seed: number;
  /** Readings per second. */
  readonly rate: number;
  /** Path of a compiled logger; undefined: `KRAKEN_LOGGER_BINARY`, or else the sources. */
  readonly binary: string | undefined;
}

/** Maximum length of a line of the help. */
const MAX_LINE_LENGTH = 99;

export const HELP = `deno task soak [options]

Runs the logger with its own Mosquitto and PostgreSQL under a steady load, injects random faults,
and compares the table with the published readings. Ctrl-C ends it early, with the comparison.

  --minutes N     how long faults are injected (default 30); each kind is injected at least once
  --rate N        readings per second (default 500), half of QoS 1 and half of QoS 2
  --seed N        determines the schedule of the faults (default: random; it is printed)
  --binary PATH   soak this compiled logger, not the sources (or set KRAKEN_LOGGER_BINARY)
  --help          print this help

Exit status: 0 if every reading is stored exactly once and there are no other problems, otherwise 1.

The faults are injected one after another, in random order in each round, with pauses in between.
The effect of each is observed before it is held for a while. There is at least one round. The
logger is killed or stopped during some of them.

${formatKinds(KINDS)}

Without libfaketime, the faults of the clock are skipped; without the permission to mount, those of
the spool's disk. The summary lists them.

Not included, but tested in tests/faults:

  The broker killed, or its store deleted, with messages that it has acknowledged but not delivered:
  Mosquitto saves its store only at intervals, and loses them itself. The load pauses until there
  are none.
  A full disk of the database: it would have to be small enough to be filled, and large enough for a
  long soak.
  Little memory, hostile payloads, damaged spool files, a second logger with the same client id or
  the same spool directory: the requirements on the logger go beyond losing nothing.
`;

/** Formats a list with as many entries per line as fit. */
function formatKinds(kinds: readonly string[]): string {
  const lines = [""];
  for (const [index, kind] of kinds.entries()) {
    const text = index < kinds.length - 1 ? `${kind};` : kind;
    const line = lines.at(-1) ?? "";
    if (line !== "" && line.length + text.length > MAX_LINE_LENGTH) lines.push(`  ${text}`);
    else lines[lines.length - 1] = `${line === "" ? " " : line} ${text}`;
  }
  return lines.join("\n");
}

/**
 * @returns the options; null for `--help`.
 * @throws {TypeError} when an option is unknown or its value is not allowed.
 */
export function parseOptions(args: readonly string[]): SoakOptions | null {
  const { values } = parseArgs({
    args: [...args],
    options: {
      minutes: { type: "string", default: "30" },
      seed: { type: "string", default: String(Math.floor(Math.random() * 1e9)) },
      rate: { type: "string", default: "500" },
      binary: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return null;
  const { binary } = values;
  return {
    minutes: parseNumber("minutes", values.minutes, { min: 0, max: 100_000 }),
    seed: parseNumber("seed", values.seed, { min: 0, max: 2 ** 32 - 1, isWhole: true }),
    rate: parseNumber("rate", values.rate, { min: 10, max: 5_000, isWhole: true }),
    binary,
  };
}

interface Limits {
  readonly min: number;
  readonly max: number;
  readonly isWhole?: boolean;
}

function parseNumber(name: string, text: string, { min, max, isWhole = false }: Limits): number {
  const number = text.trim() === "" ? NaN : Number(text);
  if (!(number >= min && number <= max) || (isWhole && !Number.isInteger(number))) {
    const kind = isWhole ? "a whole number" : "a number";
    throw new TypeError(`--${name}: must be ${kind} from ${min} to ${max}, received '${text}'`);
  }
  return number;
}
