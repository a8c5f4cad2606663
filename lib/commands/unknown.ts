/** `kraken-logger unknown`: lists the sensors that publish but are not registered. */

import { describeError } from "../common/error_text.ts";
import { escapeControls, formatCount, formatTime } from "../common/text.ts";
import type { StorageConfig } from "../config/config.ts";
import type { DatabaseConfig } from "../config/database.ts";
import { DatabaseConnection } from "../database/connection.ts";
import { DatabaseError } from "../database/errors.ts";
import { registrationSql } from "../database/schema.ts";
import { SpoolFile } from "../spool/file.ts";
import { type UnknownSensor, UnknownSensors } from "../spool/unknown_sensors.ts";

/** The format of the list, and where to print it. */
export interface UnknownOptions {
  /** Print one JSON object per line. */
  readonly json: boolean;
  /** Print the SQL statements that register the sensors. */
  readonly sql: boolean;
  readonly print: (text: string) => void;
  /** Prints a message that is not part of the list. */
  readonly printNote: (text: string) => void;
}

/**
 * Prints the sensors, the last seen first. Sensors that were registered in the meantime are removed
 * from the record first; if the database cannot be queried, a note says so and all are printed.
 *
 * @throws {SpoolError} when there is no spool, or it cannot be read.
 */
export async function listUnknown(config: StorageConfig, options: UnknownOptions): Promise<void> {
  const { json, sql, print, printNote } = options;
  using spoolFile = SpoolFile.attach(config.spool);
  const record = new UnknownSensors(spoolFile);
  const seen = record.list();
  const registered = seen.length === 0
    ? new Set()
    : await readRegistered(config.database, printNote);
  const isRegistered = ({ uuid, sid }: UnknownSensor): boolean => registered.has(`${uuid} ${sid}`);
  record.delete(seen.filter(isRegistered));
  const sensors = seen.filter((sensor) => !isRegistered(sensor));
  if (json) print(sensors.map(formatJson).join(""));
  else if (sql) print(sensors.map(formatSql).join(""));
  else print(sensors.length === 0 ? "No unknown sensors.\n" : formatTable(sensors));
}

/** The registered sensors as `uuid sid`; empty, after a note, if the database cannot be queried. */
async function readRegistered(
  config: DatabaseConfig,
  printNote: (text: string) => void,
): Promise<Set<string>> {
  try {
    await using connection = await DatabaseConnection.open(config);
    const rows = await connection.query<{ sensor: string }>(
      "SELECT uuid || ' ' || sensor_sid AS sensor FROM sensors",
    );
    return new Set(rows.map(({ sensor }) => sensor));
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    printNote(
      `Cannot check which of these sensors are registered by now: ${describeError(error)}.\n`,
    );
    return new Set();
  }
}

const HEADINGS = ["uuid", "sid", "topic", "last value", "readings", "first seen", "last seen"];

function formatTable(sensors: readonly UnknownSensor[]): string {
  const rows = sensors.map((sensor) => [
    sensor.uuid,
    String(sensor.sid),
    escapeControls(sensor.topic),
    formatValue(sensor),
    String(sensor.count),
    formatTime(sensor.firstMs),
    formatTime(sensor.lastMs),
  ]);
  const widths = HEADINGS.map((heading, column) =>
    Math.max(...[heading, ...rows.map((row) => row[column] ?? "")].map(({ length }) => length))
  );
  const formatRow = (row: readonly string[]): string =>
    `${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd()}\n`;
  return [HEADINGS, ...rows].map(formatRow).join("");
}

/** The statement that registers the sensor, preceded by a comment with its last reading. */
function formatSql(sensor: UnknownSensor): string {
  const { topic, count, lastMs } = sensor;
  const comment =
    `${escapeControls(topic)}, last value ${formatValue(sensor)}, ${
      formatCount(count, "reading")
    }, ` +
    `last seen ${formatTime(lastMs)}`;
  return `-- ${comment}\n${registrationSql(sensor)}\n`;
}

function formatJson({ firstMs, lastMs, ...sensor }: UnknownSensor): string {
  return `${
    JSON.stringify({
      ...sensor,
      firstSeen: new Date(firstMs).toISOString(),
      lastSeen: new Date(lastMs).toISOString(),
    })
  }\n`;
}

function formatValue({ value, unit }: UnknownSensor): string {
  return escapeControls(`${value} ${unit}`.trimEnd());
}
