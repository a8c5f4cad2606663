/** Formats the report on availability as text, JSON or CSV. */

import { escapeControls } from "../../common/text.ts";
import {
  type AvailabilityQuery,
  type Gap,
  type PeriodResult,
  type SensorResult,
  sortGaps,
} from "./availability.ts";

/** The format of the report. */
export interface ReportLayout {
  /** Whether to report each sensor separately. */
  readonly perSensor: boolean;
  readonly format: "text" | "json" | "csv";
  /** The table of a CSV report; the other formats have both. */
  readonly table: "periods" | "gaps";
}

/** The measured availability. */
export interface ReportResults {
  readonly results: readonly SensorResult[];
  /** Sensors without a reading before the end of the report. */
  readonly withoutReadings: readonly SensorIdentity[];
}

type SensorIdentity = Pick<SensorResult, "uuid" | "sid" | "label">;

type Options = AvailabilityQuery & ReportLayout;

/**
 * Formats the report. In CSV there is no place for the sensors without readings: see
 * `describeWithoutReadings`.
 */
export function formatReport(found: ReportResults, options: Options): string {
  if (options.format === "json") return formatJson(found, options);
  if (options.format === "text") return formatText(found, options);
  return formatCsv(options.table === "gaps" ? gapRows(found, options) : periodRows(found, options));
}

/** Maximum number of sensors without readings that the text names. */
const MAX_NAMED = 20;

/** Lists the sensors without readings, which are in no table; empty if there are none. */
export function describeWithoutReadings(
  sensors: ReportResults["withoutReadings"],
  { untilMs }: Pick<AvailabilityQuery, "untilMs">,
): string {
  if (sensors.length === 0) return "";
  const have = sensors.length === 1 ? "sensor has" : "sensors have";
  const names = sensors.slice(0, MAX_NAMED).map((sensor) => `  ${nameOf(sensor)}\n`);
  const left = sensors.length - names.length;
  const rest = left === 0 ? "" : `  and ${left} more (--json lists all of them)\n`;
  return `${sensors.length} ${have} no reading before ${formatUtc(untilMs)} UTC:\n` +
    names.join("") + rest;
}

function formatText({ results, withoutReadings }: ReportResults, options: Options): string {
  const { binMs, sinceMs, untilMs, perSensor } = options;
  const without = describeWithoutReadings(withoutReadings, options);
  const rest = without === "" ? "" : `\n${without}`;
  if (results.length === 0) return `No sensor has readings in this period.\n${rest}`;
  const count = `${results.length} ${results.length === 1 ? "sensor" : "sensors"}`;
  const head = `Availability in bins of ${duration(binMs)}, from ${formatUtc(sinceMs)} to ` +
    `${formatUtc(untilMs)} UTC, ${count}\n`;
  const parts = perSensor
    ? results.map((result) => `\n${nameOf(result)}\n${formatTables(result, options)}`)
    : [
      `\n${
        formatTables({ periods: sumPeriods(results), gaps: longestGaps(results, options) }, options)
      }`,
    ];
  return head + parts.join("") + rest;
}

function formatTables(
  { periods, gaps }: {
    readonly periods: readonly PeriodResult[];
    readonly gaps: readonly (Gap & { readonly sensor?: SensorIdentity })[];
  },
  { binMs, maxGaps }: Options,
): string {
  if (sum(periods).bins === 0) {
    return `${periodTable(periods)}\nNo bin of ${duration(binMs)} is complete.\n`;
  }
  return periodTable(periods) + (maxGaps === 0 ? "" : `\n${gapTable(gaps)}`);
}

function periodTable(periods: readonly PeriodResult[]): string {
  const line = (cells: readonly [string, string, string, string]): string =>
    `${cells[0].padEnd(12)}${cells[1].padStart(12)}${cells[2].padStart(12)}` +
    `${cells[3].padStart(15)}\n`;
  const row = ({ period, bins, missed }: PeriodResult): string => {
    const percent = formatPercent({ bins, missed }, 3);
    return line([period, String(bins), String(missed), percent === "" ? "–" : `${percent} %`]);
  };
  const total = { period: "total", ...sum(periods) };
  return line(["period", "bins", "missed", "availability"]) +
    [...periods, total].map(row).join("");
}

/** The table has a column for the sensor if its gaps are those of several sensors. */
function gapTable(gaps: readonly (Gap & { readonly sensor?: SensorIdentity })[]): string {
  if (gaps.length === 0) return "No gaps.\n";
  const line = (cells: readonly [string, string, string], sensor: string | undefined): string =>
    `${cells[0].padEnd(21)}${cells[1].padEnd(21)}${cells[2].padStart(9)}` +
    `${sensor === undefined ? "" : `  ${sensor}`}\n`;
  const rows = gaps.map(({ fromMs, toMs, sensor }) =>
    line(
      [formatUtc(fromMs), formatUtc(toMs), duration(toMs - fromMs)],
      sensor && nameOf(sensor),
    )
  );
  const head = line(["Longest gaps, from", "to (UTC)", "length"], gaps[0]?.sensor && "sensor");
  return head + rows.join("");
}

function formatJson({ results, withoutReadings }: ReportResults, options: Options): string {
  const { sinceMs, untilMs, binMs, by } = options;
  const shown = (periods: readonly PeriodResult[]): unknown => periods.map(withAvailability);
  const report = {
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
      gaps: gaps.map(({ fromMs, toMs }) => ({
        from: isoTime(fromMs),
        to: isoTime(toMs),
        seconds: (toMs - fromMs) / 1000,
      })),
    })),
    sensorsWithoutReadings: withoutReadings.map(({ uuid, sid, label }) => ({ uuid, sid, label })),
  };
  return `${JSON.stringify(report, null, 2)}\n`;
}

/** One row per period, or per period and sensor. */
function periodRows({ results }: ReportResults, { perSensor }: Options): string[][] {
  const columns = (period: PeriodResult): string[] => [
    ...[period.period, String(period.bins), String(period.missed)],
    formatPercent(period, 6),
  ];
  const names = ["period", "bins", "missed", "availability_percent"];
  if (!perSensor) return [names, ...sumPeriods(results).map(columns)];
  return [
    ["uuid", "sid", "label", ...names],
    ...results.flatMap(({ uuid, sid, label, periods }) =>
      periods.map((period) => [uuid, String(sid), label, ...columns(period)])
    ),
  ];
}

/** One row per gap: the longest gaps of all sensors together, or of each sensor. */
function gapRows({ results }: ReportResults, options: Options): string[][] {
  const gaps = options.perSensor
    ? results.flatMap((sensor) => sensor.gaps.map((gap) => ({ ...gap, sensor })))
    : longestGaps(results, options);
  return [
    ["uuid", "sid", "label", "from", "to", "seconds"],
    ...gaps.map(({ fromMs, toMs, sensor: { uuid, sid, label } }) => [
      ...[uuid, String(sid), label],
      ...[isoTime(fromMs), isoTime(toMs), String((toMs - fromMs) / 1000)],
    ]),
  ];
}

/** Formats rows as CSV (RFC 4180). */
function formatCsv(rows: readonly (readonly string[])[]): string {
  return rows.map((row) => `${row.map(quoteCsv).join(",")}\r\n`).join("");
}

function quoteCsv(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The longest gaps of all sensors together. */
function longestGaps(
  results: readonly SensorResult[],
  { maxGaps }: Options,
): (Gap & { readonly sensor: SensorIdentity })[] {
  const gaps = results.flatMap((sensor) => sensor.gaps.map((gap) => ({ ...gap, sensor })));
  return sortGaps(gaps).slice(0, maxGaps);
}

/** The sums over all sensors, per period. */
function sumPeriods(results: readonly SensorResult[]): PeriodResult[] {
  const sums = new Map<string, { period: string; bins: number; missed: number }>();
  for (const { period, bins, missed } of results.flatMap(({ periods }) => periods)) {
    const sum = sums.get(period) ?? { period, bins: 0, missed: 0 };
    sums.set(period, sum);
    sum.bins += bins;
    sum.missed += missed;
  }
  return [...sums.values()].sort((a, b) => a.period < b.period ? -1 : 1);
}

type Bins = Pick<PeriodResult, "bins" | "missed">;

function sum(periods: readonly Bins[]): Bins {
  return {
    bins: periods.reduce((total, { bins }) => total + bins, 0),
    missed: periods.reduce((total, { missed }) => total + missed, 0),
  };
}

/** Null if there are no bins. */
function percent({ bins, missed }: Bins): number | null {
  return bins === 0 ? null : 100 * (bins - missed) / bins;
}

/** Empty if there are no bins. Rounding never turns a missed bin into 100 %. */
function formatPercent(part: Bins, digits: number): string {
  const max = part.missed === 0 ? 100 : 100 - 10 ** -digits;
  const value = percent(part);
  return value === null ? "" : Math.min(value, max).toFixed(digits);
}

function withAvailability<Part extends Bins>(
  part: Part,
): Part & { readonly availabilityPercent: number | null } {
  return { ...part, availabilityPercent: percent(part) };
}

function nameOf({ uuid, sid, label }: SensorIdentity): string {
  return escapeControls(`${uuid} ${sid}${label === "" ? "" : `  ${label}`}`);
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}

/** Formats ms since 1970 as `2026-11-24 16:30:00` in UTC. */
export function formatUtc(ms: number): string {
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
