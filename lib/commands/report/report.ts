/** `kraken-logger report`: reports availability and gaps of the sensors, from the database. */

import { describeError } from "../../common/error_text.ts";
import type { DatabaseConfig } from "../../config/database.ts";
import {
  AvailabilityMeter,
  type AvailabilityQuery,
  listSensors,
  type SensorResult,
  type SensorRow,
} from "./availability.ts";
import type { Tuning } from "../../config/tuning.ts";
import { DatabaseConnection } from "../../database/connection.ts";
import { DatabaseError } from "../../database/errors.ts";
import { describeEndpoint } from "../../common/endpoint.ts";
import { describeWithoutReadings, formatReport, type ReportLayout } from "./format.ts";
import { ReportProgress } from "./progress.ts";

/** A sensor that the user selected; without `sid`, all sensors of that uuid. */
export interface SensorName {
  /** With hyphens, in lower case. */
  readonly uuid: string;
  readonly sid?: number;
}

/** What to report, and where to print it. */
export interface ReportOptions extends AvailabilityQuery, ReportLayout {
  /** The sensors to report on; if empty, all enabled ones. */
  readonly sensors: readonly SensorName[];
  readonly print: (text: string) => void;
  /** Prints progress and errors, which are not part of the report. */
  readonly printNote: (text: string) => void;
}

/**
 * Measures the sensors and prints the report. Returns false, after a note, if the database failed or
 * a selected sensor is not registered.
 */
export async function report(config: DatabaseConfig, options: ReportOptions): Promise<boolean> {
  const { print, printNote } = options;
  try {
    await using connection = await DatabaseConnection.open(config);
    const sensors = chooseSensors(await listSensors(connection), options);
    if (sensors === undefined) return false;
    const { results, withoutReadings } = await measureSensors(connection, sensors, {
      ...options,
      tuning: config.tuning,
    });
    print(formatReport({ results, withoutReadings }, options));
    if (options.format === "csv") printNote(describeWithoutReadings(withoutReadings, options));
    return true;
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    const where = `Database '${config.name}' at ${describeEndpoint(config.endpoint)}`;
    printNote(`${where}: ${describeError(error)}.\n`);
    return false;
  }
}

/** The sensors to report on. Undefined, after a note, if a selected one is not registered. */
function chooseSensors(
  all: readonly SensorRow[],
  { sensors, printNote }: ReportOptions,
): SensorRow[] | undefined {
  const isSelected = ({ uuid, sid }: SensorRow) => (name: SensorName): boolean =>
    name.uuid === uuid && (name.sid === undefined || name.sid === sid);
  const missing = sensors.find((name) => !all.some((sensor) => isSelected(sensor)(name)));
  if (missing !== undefined) {
    const sid = missing.sid === undefined ? "" : ` sid ${missing.sid}`;
    printNote(`Sensor ${missing.uuid}${sid} is not registered.\n`);
    return undefined;
  }
  return sensors.length === 0
    ? all.filter(({ enabled }) => enabled)
    : all.filter((sensor) => sensors.some(isSelected(sensor)));
}

async function measureSensors(
  connection: DatabaseConnection,
  sensors: readonly SensorRow[],
  options: ReportOptions & { readonly tuning: Tuning },
): Promise<{ results: SensorResult[]; withoutReadings: SensorRow[] }> {
  const progress = new ReportProgress(sensors.length, performance.now(), options.tuning);
  const showProgress = (ordinal: number, reachedMs?: number): void => {
    const line = progress.tick({ ordinal, reachedMs, nowMs: performance.now() });
    if (line !== undefined) options.printNote(`${line}\n`);
  };
  const results: SensorResult[] = [];
  const withoutReadings: SensorRow[] = [];
  const meter = new AvailabilityMeter(connection, options);
  for (const [index, sensor] of sensors.entries()) {
    showProgress(index + 1);
    const result = await meter.measure(sensor, (reachedMs) => showProgress(index + 1, reachedMs));
    if (result === undefined) withoutReadings.push(sensor);
    else results.push(result);
  }
  return { results, withoutReadings };
}
