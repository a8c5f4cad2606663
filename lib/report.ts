/** `kraken-logger report`: the availability of the sensors' data, from the database. */

import {
  type AvailabilityQuery,
  type Gap,
  listSensors,
  measureSensor,
  type PeriodResult,
  type SensorResult,
} from "./availability.ts";
import type { DatabaseConfig } from "./config.ts";
import { DatabaseConnection, DatabaseError } from "./database.ts";
import { describeEndpoint } from "./endpoint.ts";
import { escapeControls } from "./log.ts";
import { describeError } from "./retry.ts";

/** A sensor that was asked for; every `sid` where there is none. */
export interface SensorName {
  /** With hyphens, in lower case. */
  readonly uuid: string;
  readonly sid?: number;
}

export interface ReportOptions extends AvailabilityQuery {
  /** Those that are enabled where there are none. */
  readonly sensors: readonly SensorName[];
  /** Whether each sensor has its own lines. */
  readonly perSensor: boolean;
  readonly format: "text" | "json" | "csv";
  readonly print: (text: string) => void;
  readonly printNote: (text: string) => void;
}

/** Prints the report. Returns whether there was one. */
export async function report(config: DatabaseConfig, options: ReportOptions): Promise<boolean> {
  let connection: DatabaseConnection | undefined;
  try {
    connection = await DatabaseConnection.open(config, new AbortController().signal);
    const all = await listSensors(connection);
    const isMeant = ({ uuid, sid }: { uuid: string; sid: number }) => (name: SensorName): boolean =>
      name.uuid === uuid && (name.sid === undefined || name.sid === sid);
    const missing = options.sensors.find((name) => !all.some((sensor) => isMeant(sensor)(name)));
    if (missing !== undefined) {
      const sid = missing.sid === undefined ? "" : ` sid ${missing.sid}`;
      options.printNote(`There is no sensor ${missing.uuid}${sid}.\n`);
      return false;
    }
    const chosen = options.sensors.length === 0
      ? all.filter(({ enabled }) => enabled)
      : all.filter((sensor) => options.sensors.some(isMeant(sensor)));
    const results: SensorResult[] = [];
    for (const sensor of chosen) {
      const result = await measureSensor(connection, sensor, options);
      if (result !== undefined) results.push(result);
    }
    options.print(FORMATS[options.format](results, options));
    return true;
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    const where = `Database '${config.name}' at ${describeEndpoint(config.endpoint)}`;
    options.printNote(`${where}: ${describeError(error)}.\n`);
    return false;
  } finally {
    await connection?.close();
  }
}

type Format = (results: readonly SensorResult[], options: ReportOptions) => string;

const FORMATS: Readonly<Record<ReportOptions["format"], Format>> = {
  text: formatText,
  json: formatJson,
  csv: formatCsv,
};

function formatText(results: readonly SensorResult[], options: ReportOptions): string {
  const { binMs, perSensor, maxGaps } = options;
  if (results.length === 0) return "No sensor has data in this time.\n";
  const count = `${results.length} ${results.length === 1 ? "sensor" : "sensors"}`;
  const head = `Data in bins of ${duration(binMs)}, from ${time(options.sinceMs)} to ` +
    `${time(options.untilMs)} UTC, ${count}\n`;
  const tables = perSensor
    ? results.map((result) => `\n${nameOf(result)}\n${table(result.periods)}`)
    : [`\n${table(sumPeriods(results))}`];
  const gaps = results.flatMap((result) => result.gaps.map((gap) => ({ ...gap, result })))
    .sort((a, b) => (b.toMs - b.fromMs) - (a.toMs - a.fromMs)).slice(0, maxGaps);
  const gapLines = gaps.map(({ fromMs, toMs, result }) =>
    `${time(fromMs)}  ${time(toMs)}  ${duration(toMs - fromMs).padStart(9)}  ${nameOf(result)}\n`
  );
  const longest = gaps.length === 0
    ? "\nNo gaps.\n"
    : `\n${"Longest gaps, from".padEnd(21)}${"to (UTC)".padEnd(21)}${
      "length".padStart(9)
    }  sensor\n` +
      gapLines.join("");
  return head + tables.join("") + longest;
}

function table(periods: readonly PeriodResult[]): string {
  const line = (cells: readonly [string, string, string, string]): string =>
    `${cells[0].padEnd(12)}${cells[1].padStart(12)}${cells[2].padStart(12)}` +
    `${cells[3].padStart(15)}\n`;
  const row = ({ period, bins, missed }: PeriodResult): string =>
    line([period, String(bins), String(missed), `${percent({ bins, missed }).toFixed(3)} %`]);
  const total = { period: "total", ...sum(periods) };
  return line(["period", "bins", "missed", "availability"]) +
    [...periods, total].map(row).join("");
}

function formatJson(results: readonly SensorResult[], options: ReportOptions): string {
  const { sinceMs, untilMs, binMs, by } = options;
  const shown = (periods: readonly PeriodResult[]): unknown => periods.map(withAvailability);
  return `${
    JSON.stringify(
      {
        since: isoTime(sinceMs),
        until: isoTime(untilMs),
        binSeconds: binMs / 1000,
        by,
        total: withAvailability(sum(results.flatMap(({ periods }) => periods))),
        periods: shown(sumPeriods(results)),
        sensors: results.map(({ uuid, sid, label, periods, gaps }) => ({
          ...{ uuid, sid, label },
          total: withAvailability(sum(periods)),
          periods: shown(periods),
          gaps: gaps.map(({ fromMs, toMs }: Gap) => ({
            from: isoTime(fromMs),
            to: isoTime(toMs),
            seconds: (toMs - fromMs) / 1000,
          })),
        })),
      },
      null,
      2,
    )
  }\n`;
}

/** RFC 4180, with a line for each period, or for each period of each sensor. */
function formatCsv(results: readonly SensorResult[], { perSensor }: ReportOptions): string {
  const columns = (period: PeriodResult): string[] => [
    ...[period.period, String(period.bins), String(period.missed)],
    percent(period).toFixed(6),
  ];
  const rows = perSensor
    ? [
      ["uuid", "sid", "label", "period", "bins", "missed", "availability_percent"],
      ...results.flatMap(({ uuid, sid, label, periods }) =>
        periods.map((period) => [uuid, String(sid), label, ...columns(period)])
      ),
    ]
    : [
      ["period", "bins", "missed", "availability_percent"],
      ...sumPeriods(results).map(columns),
    ];
  return rows.map((row) => `${row.map(quoteCsv).join(",")}\r\n`).join("");
}

function quoteCsv(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** All sensors together, period by period. */
function sumPeriods(results: readonly SensorResult[]): PeriodResult[] {
  const names = [...new Set(results.flatMap(({ periods }) => periods.map(({ period }) => period)))];
  return names.sort().map((period) => ({
    period,
    ...sum(results.flatMap(({ periods }) => periods.filter((one) => one.period === period))),
  }));
}

type Bins = Pick<PeriodResult, "bins" | "missed">;

function sum(periods: readonly Bins[]): Bins {
  return {
    bins: periods.reduce((total, { bins }) => total + bins, 0),
    missed: periods.reduce((total, { missed }) => total + missed, 0),
  };
}

function percent({ bins, missed }: Bins): number {
  return bins === 0 ? 100 : 100 * (bins - missed) / bins;
}

function withAvailability<Part extends Bins>(part: Part): Part & { availabilityPercent: number } {
  return { ...part, availabilityPercent: percent(part) };
}

function nameOf({ uuid, sid, label }: SensorResult): string {
  return escapeControls(`${uuid} ${sid}${label === "" ? "" : `  ${label}`}`);
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}

/** `2026-11-24 16:30:00`. */
function time(ms: number): string {
  return isoTime(ms).slice(0, 19).replace("T", " ");
}

/** `90 s`, `5 min`, `12.5 h`, `3.0 days`. */
function duration(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 60 || (seconds < 600 && seconds % 60 !== 0)) return `${seconds} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86_400).toFixed(1)} days`;
}
