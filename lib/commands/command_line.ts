/** The command line: the commands, their options, and the help text. */

import { parseArgs } from "node:util";
import type { PeriodUnit } from "./report/availability.ts";
import type { SensorName } from "./report/report.ts";
import type { ReportLayout } from "./report/format.ts";
import { isTopicFilter, TOPIC_FILTER_RULE } from "../message/topic_filter.ts";

/** A parsed command line: the command and its options. */
export type Command =
  | { readonly name: "run" | "check" | "healthcheck" | "help" | "version" }
  | { readonly name: "schema" | "init"; readonly timescale: boolean; readonly grant?: string }
  | {
    readonly name: "rejected";
    readonly json: boolean;
    readonly retry: boolean;
    /** Only messages rejected at this time or later, in ms since 1970-01-01 00:00 UTC. */
    readonly sinceMs?: number;
    /** Only messages whose topic matches this filter. */
    readonly topic?: string;
  }
  | ReportLayout & {
    readonly name: "report";
    readonly sensors: readonly SensorName[];
    readonly by: PeriodUnit;
    readonly binMs: number;
    /** Start and end of the report, in ms since 1970-01-01 00:00 UTC. */
    readonly sinceMs: number;
    readonly untilMs: number;
    readonly maxGaps: number;
  }
  | { readonly name: "unknown"; readonly json: boolean; readonly sql: boolean };

export const HELP =
  `kraken-logger: stores LabKraken sensor readings from MQTT in PostgreSQL or TimescaleDB

Usage: kraken-logger [COMMAND] [OPTION]…

Commands:
  run         store readings from the broker in the database until SIGTERM or Ctrl-C (default)
  check       check configuration, spool, database and broker; name the remedy of each problem
  schema      print the SQL that creates the tables
  init        create the tables in the configured database; safe to repeat
  rejected    list the rejected messages that are recorded in the spool directory
  unknown     list the unregistered sensors that are recorded in the spool directory
  report      show availability and gaps of the stored readings
  healthcheck query the health of the logger on HTTP_PORT

Options of schema and init:
  --timescale     make sensor_data a TimescaleDB hypertable
  --grant ROLE    grant ROLE the privileges that the logger needs

Options of rejected:
  --since TIME    only messages rejected since TIME: a date (2026-11-23), a date and time
                  (2026-11-23T17:30) in the time zone of the host, or an age (30m, 12h, 7d)
  --topic FILTER  only messages whose topic matches the filter, such as 'sensors/+/x/#'
  --retry         insert the messages again; those that are stored leave the record
  --json          print one JSON object per line

Options of unknown:
  --sql           print the SQL that registers the sensors
  --json          print one JSON object per line

Options of report (times are in UTC unless they name another time zone):
  --since TIME    start of the report, by default 30 days before its end; written as
                  above, but in UTC
  --until TIME    end of the report, by default now
  --sensor NAME   only this sensor, as UUID or UUID:SID; may be repeated; by default all enabled
                  sensors
  --per-sensor    report each sensor separately
  --by PERIOD     one row per day, month (default) or year
  --bin LENGTH    count availability in bins of this length, by default 1m; a bin is available if
                  it has at least one reading
  --gaps N        list the N longest gaps, by default 5; with --per-sensor, N of each sensor
  --json          print one JSON object
  --csv           print comma-separated values
  --table NAME    with --csv: which table to print, 'periods' (default) or 'gaps'

Other options:
  -h, --help      print this help
  -V, --version   print the version

The configuration comes from environment variables; .env in the working directory supplies those
that the environment does not set. DATABASE_HOST, DATABASE_USER, DATABASE_PASSWORD and MQTT_HOST are
required. Set MQTT_CLIENT_ID too: without it, messages published while the logger is not connected
are lost.

Exit status: 0 success, 1 failure, 78 configuration error.
`;

/** The command line cannot be parsed. The message names the argument and the rule it breaks. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** The options that each command accepts. */
const OPTIONS_OF: Readonly<Record<string, readonly string[]>> = {
  run: [],
  check: [],
  healthcheck: [],
  help: [],
  schema: ["timescale", "grant"],
  init: ["timescale", "grant"],
  rejected: ["since", "topic", "retry", "json"],
  unknown: ["json", "sql"],
  report: ["since", "until", "sensor", "per-sensor", "by", "bin", "gaps", "json", "csv", "table"],
};

/**
 * Parses the arguments. An age such as `--since 12h` is counted back from `nowMs` (ms since 1970).
 *
 * @throws {UsageError} for an unknown command or option, an option that the command does not
 *   accept, or a malformed value.
 */
export function parseCommandLine(args: readonly string[], nowMs: number = Date.now()): Command {
  const { values, positionals } = parse(args);
  if (values.help) return { name: "help" };
  if (values.version) return { name: "version" };
  const [name = "run", ...rest] = positionals;
  if (rest.length > 0) throw new UsageError(`unexpected argument '${rest[0]}'`);
  const allowed = Object.hasOwn(OPTIONS_OF, name) ? OPTIONS_OF[name] : undefined;
  const misplaced = Object.keys(values).find((option) => !allowed?.includes(option));
  if (allowed !== undefined && misplaced !== undefined) {
    throw new UsageError(`--${misplaced} is not an option of '${name}'`);
  }
  const conflicting = [["retry", "json"], ["json", "sql"], ["json", "csv"]].find((pair) =>
    pair.every((option) => Object.hasOwn(values, option))
  );
  if (conflicting !== undefined) {
    throw new UsageError(`--${conflicting[0]} and --${conflicting[1]} cannot be combined`);
  }
  const { timescale = false, retry = false, json = false, sql = false } = values;
  switch (name) {
    case "run":
    case "check":
    case "healthcheck":
    case "help":
      return { name };
    case "schema":
    case "init":
      return { name, timescale, ...(values.grant !== undefined && { grant: values.grant }) };
    case "rejected":
      return {
        name,
        json,
        retry,
        ...(values.since !== undefined && {
          sinceMs: parseTime(values.since, { option: "since", zone: "", nowMs }),
        }),
        ...(values.topic !== undefined && { topic: parseTopic(values.topic) }),
      };
    case "report":
      return parseReport(values, nowMs);
    case "unknown":
      return { name, json, sql };
    default:
      throw new UsageError(`unknown command '${name}'`);
  }
}

const UNIT_MS: Readonly<Record<string, number>> = {
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

const DEFAULT_REPORT_MS = 30 * 86_400_000;

function parseReport(values: Options, nowMs: number): Command & { readonly name: "report" } {
  const { since, until, bin = "1m", by = "month", gaps = "5", json, csv } = values;
  // UTC, like everything that the report prints.
  const parse = (text: string, option: string): number =>
    parseTime(text, { option, zone: "Z", nowMs });
  const untilMs = Math.min(until === undefined ? nowMs : parse(until, "until"), nowMs);
  const sinceMs = since === undefined ? untilMs - DEFAULT_REPORT_MS : parse(since, "since");
  if (sinceMs >= untilMs) throw new UsageError("--since must be before --until and before now");
  const [, count, unit = ""] = /^([1-9]\d{0,5})([smhd])$/.exec(bin) ?? [];
  if (count === undefined) {
    throw new UsageError(
      `--bin must be a length of time such as 10s, 1m, 1h or 1d, received '${bin}'`,
    );
  }
  if (by !== "day" && by !== "month" && by !== "year") {
    throw new UsageError(`--by must be day, month or year, received '${by}'`);
  }
  if (!/^\d{1,4}$/.test(gaps)) {
    throw new UsageError(`--gaps must be a number from 0 to 9999, received '${gaps}'`);
  }
  return {
    name: "report",
    sensors: (values.sensor ?? []).map(parseSensorName),
    perSensor: values["per-sensor"] ?? false,
    by,
    binMs: Number(count) * (UNIT_MS[unit] ?? 0),
    sinceMs,
    untilMs,
    maxGaps: Number(gaps),
    format: json ? "json" : csv ? "csv" : "text",
    table: parseTable(values),
  };
}

function parseTable({ table, gaps, csv }: Options): ReportLayout["table"] {
  if (table !== undefined && !csv) throw new UsageError("--table has no effect without --csv");
  const name = table ?? "periods";
  if (name !== "periods" && name !== "gaps") {
    throw new UsageError(`--table must be periods or gaps, received '${table}'`);
  }
  if (csv && name === "periods" && gaps !== undefined) {
    throw new UsageError("--gaps has no effect with --csv, unless --table is gaps");
  }
  return name;
}

function parseSensorName(text: string): SensorName {
  const pattern = /^([\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12})(?::(-?\d{1,19}))?$/i;
  const [, uuid, sid] = pattern.exec(text) ?? [];
  if (uuid === undefined || !Number.isSafeInteger(Number(sid ?? 0))) {
    throw new UsageError(`--sensor must be UUID or UUID:SID, received '${text}'`);
  }
  return { uuid: uuid.toLowerCase(), ...(sid !== undefined && { sid: Number(sid) }) };
}

interface TimeOptions {
  readonly option: string;
  /** Time zone of a date or time without one: `Z` for UTC, empty for that of the host. */
  readonly zone: "Z" | "";
  readonly nowMs: number;
}

/** The first day of the year 1, the earliest date that has four digits. */
const FIRST_DAY_MS = Date.parse("0001-01-01T00:00Z");

/** Parses a date, a date and time, or an age such as `12h`, to ms since 1970. */
function parseTime(text: string, { option, zone, nowMs }: TimeOptions): number {
  const timeMs = parseAge(text, nowMs) ?? parseDate(text, zone);
  if (timeMs === undefined || Number.isNaN(timeMs)) {
    throw new UsageError(
      `--${option} must be a date, a date and time, or an age such as 30m, 12h or 7d, received '${text}'`,
    );
  }
  if (timeMs < FIRST_DAY_MS) {
    throw new UsageError(`--${option} must not be before the year 1, received '${text}'`);
  }
  return timeMs;
}

function parseAge(text: string, nowMs: number): number | undefined {
  const [, count, unit = ""] = /^(\d+)([smhd])$/.exec(text) ?? [];
  return count === undefined ? undefined : nowMs - Number(count) * (UNIT_MS[unit] ?? 0);
}

/** Returns NaN for a day or time that does not exist, undefined for another form. */
function parseDate(text: string, zone: TimeOptions["zone"]): number | undefined {
  const pattern =
    /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?) ?(Z|UTC|[+-]\d\d:?\d\d)?)?$/;
  const [, day, time = "00:00", own] = pattern.exec(text) ?? [];
  if (day === undefined) return undefined;
  // Date.parse would read February 30 as a day of March.
  const dayMs = Date.parse(`${day}T00:00Z`);
  if (Number.isNaN(dayMs) || new Date(dayMs).toISOString().slice(0, 10) !== day) return NaN;
  const offset = own === "UTC" ? "Z" : own?.replace(/(\d\d)(\d\d)$/, "$1:$2");
  return Date.parse(`${day}T${time}${offset ?? zone}`);
}

function parseTopic(text: string): string {
  if (isTopicFilter(text)) return text;
  throw new UsageError(`--topic must be a topic filter ${TOPIC_FILTER_RULE}, received '${text}'`);
}

interface Options {
  readonly help?: boolean;
  readonly version?: boolean;
  readonly timescale?: boolean;
  readonly grant?: string;
  readonly since?: string;
  readonly until?: string;
  readonly sensor?: string[];
  readonly "per-sensor"?: boolean;
  readonly by?: string;
  readonly bin?: string;
  readonly gaps?: string;
  readonly csv?: boolean;
  readonly table?: string;
  readonly topic?: string;
  readonly retry?: boolean;
  readonly json?: boolean;
  readonly sql?: boolean;
}

function parse(args: readonly string[]): { values: Options; positionals: string[] } {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        help: { type: "boolean", short: "h" },
        version: { type: "boolean", short: "V" },
        timescale: { type: "boolean" },
        grant: { type: "string" },
        since: { type: "string" },
        until: { type: "string" },
        sensor: { type: "string", multiple: true },
        "per-sensor": { type: "boolean" },
        by: { type: "string" },
        bin: { type: "string" },
        gaps: { type: "string" },
        csv: { type: "boolean" },
        table: { type: "string" },
        topic: { type: "string" },
        retry: { type: "boolean" },
        json: { type: "boolean" },
        sql: { type: "boolean" },
      },
    });
  } catch (error) {
    // The first sentence names the option; the rest is advice about positional arguments.
    const message = error instanceof Error ? error.message : String(error);
    const sentence = message.replace(/\.\s.*$/s, "");
    throw new UsageError(sentence.replace(/^[A-Z]/, (letter) => letter.toLowerCase()), {
      cause: error,
    });
  }
}
