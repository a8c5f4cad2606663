/**
 * The command line of the soak.
 */
import { parseArgs } from "node:util";
import { KINDS } from "./faults.ts";

/** How to soak. */
export interface SoakOptions {
  /** How long faults are injected; it takes longer where each kind has not had its turn by then. */
  readonly minutes: number;
  /** Which faults come when, and the readings: the same seed gives the same ones. */
  readonly seed: number;
  /** Readings a second. */
  readonly rate: number;
  /** The compiled logger; undefined: from the sources, or what `KRAKEN_LOGGER_BINARY` names. */
  readonly binary: string | undefined;
}

/** Characters of a line of the help. */
const MAX_LINE_LENGTH = 99;

export const HELP = `deno task soak [options]

Runs the logger between a Mosquitto and a PostgreSQL of its own under a steady load, injects faults
at random, and compares the table with what was published, reading by reading. Ctrl-C ends it
early, with the comparison.

  --minutes N     how long faults are injected (default 30); each kind has its turn in any case
  --rate N        readings a second (default 500), half of QoS 1 and half of QoS 2
  --seed N        which faults come when (default: a random one, which is printed)
  --binary PATH   soak this compiled logger, not the sources; as KRAKEN_LOGGER_BINARY
  --help          this text

Exit status: 0 when every reading is there once and nothing else went wrong, 1 otherwise.

Faults, one after the other in another order in each round, with pauses in between. Each of them has
to show before it is held for a while; a soak of any length has at least one round. Some of them
last while the logger is killed or stopped, too.

${formatKinds(KINDS)}

Where libfaketime is missing, the clock is left alone, and without the right to mount the spool's
disk; the summary says so.

Left out, each with a test of its own in tests/faults:

  The broker killed or robbed of its store with messages that it has acknowledged and not handed
  over: Mosquitto saves its store now and then only, and would lose them itself. The load pauses
  until there are none of that kind.
  The disk of the database full: it would have to be both small enough to be filled and large enough
  for a long soak.
  Little memory, hostile payloads, damaged files of the spool, a second logger with the same client
  id or the same spool directory: how the logger must behave then is more than losing nothing.
`;

/** A list, as many to a line as fit. */
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
 * @returns the options, or null when help is asked for.
 * @throws {TypeError} naming what is wrong.
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
