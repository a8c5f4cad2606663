/** `kraken-logger report`: the availability of the sensors' data, from the database. */

import { describeError } from "../../common/error_text.ts";
import {
  AvailabilityMeter,
  type AvailabilityQuery,
  listSensors,
  type RegisteredSensor,
  type SensorResult,
} from "./availability.ts";
import type { DatabaseConfig } from "../../config/config.ts";
import { DatabaseConnection } from "../../database/connection.ts";
import { DatabaseError } from "../../database/errors.ts";
import { describeEndpoint } from "../../common/endpoint.ts";
import { describeWithoutReadings, formatReport, type ReportLayout } from "./format.ts";
import { ReportProgress } from "./progress.ts";

/** A sensor that was asked for; every `sid` where there is none. */
export interface SensorName {
  /** With hyphens, in lower case. */
  readonly uuid: string;
  readonly sid?: number;
}

export interface ReportOptions extends AvailabilityQuery, ReportLayout {
  /** Those that are enabled where there are none. */
  readonly sensors: readonly SensorName[];
  readonly print: (text: string) => void;
  readonly printNote: (text: string) => void;
}

/** Prints the report. Returns whether there was one. */
export async function report(config: DatabaseConfig, options: ReportOptions): Promise<boolean> {
  const { print, printNote } = options;
  let connection: DatabaseConnection | undefined;
  try {
    connection = await DatabaseConnection.open(config, new AbortController().signal);
    const sensors = chooseSensors(await listSensors(connection), options);
    if (sensors === undefined) return false;
    const { results, withoutReadings } = await measureSensors(connection, sensors, options);
    print(formatReport({ results, withoutReadings }, options));
    if (options.format === "csv") printNote(describeWithoutReadings(withoutReadings, options));
    return true;
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    const where = `Database '${config.name}' at ${describeEndpoint(config.endpoint)}`;
    printNote(`${where}: ${describeError(error)}.\n`);
    return false;
  } finally {
    await connection?.close();
  }
}

/** Undefined where one that was asked for is not registered, after a note that says so. */
function chooseSensors(
  all: readonly RegisteredSensor[],
  { sensors, printNote }: ReportOptions,
): RegisteredSensor[] | undefined {
  const isMeant = ({ uuid, sid }: RegisteredSensor) => (name: SensorName): boolean =>
    name.uuid === uuid && (name.sid === undefined || name.sid === sid);
  const missing = sensors.find((name) => !all.some((sensor) => isMeant(sensor)(name)));
  if (missing !== undefined) {
    const sid = missing.sid === undefined ? "" : ` sid ${missing.sid}`;
    printNote(`There is no sensor ${missing.uuid}${sid}.\n`);
    return undefined;
  }
  return sensors.length === 0
    ? all.filter(({ enabled }) => enabled)
    : all.filter((sensor) => sensors.some(isMeant(sensor)));
}

async function measureSensors(
  connection: DatabaseConnection,
  sensors: readonly RegisteredSensor[],
  options: ReportOptions,
): Promise<{ results: SensorResult[]; withoutReadings: RegisteredSensor[] }> {
  const progress = new ReportProgress(sensors.length, performance.now());
  const tell = (ordinal: number, reachedMs?: number): void => {
    const line = progress.look({ ordinal, reachedMs, nowMs: performance.now() });
    if (line !== undefined) options.printNote(`${line}\n`);
  };
  const results: SensorResult[] = [];
  const withoutReadings: RegisteredSensor[] = [];
  const meter = new AvailabilityMeter(connection, options);
  for (const [index, sensor] of sensors.entries()) {
    tell(index + 1);
    const result = await meter.measure(sensor, (reachedMs) => tell(index + 1, reachedMs));
    if (result === undefined) withoutReadings.push(sensor);
    else results.push(result);
  }
  return { results, withoutReadings };
}
