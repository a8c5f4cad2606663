/** Creates the tables in the configured database. */

import { describeError } from "../common/error_text.ts";
import type { DatabaseConfig } from "../config/config.ts";
import { describeEndpoint } from "../common/endpoint.ts";
import { DatabaseConnection } from "../database/connection.ts";
import { DatabaseError } from "../database/errors.ts";
import { describeHypertable, readHypertable } from "../database/hypertable.ts";
import { grantStatements, HYPERTABLE_STATEMENTS, schemaStatements } from "../database/schema.ts";

export interface InitOptions {
  /** Make `sensor_data` a TimescaleDB hypertable. */
  readonly timescale: boolean;
  /** Role that gets the privileges of the logger. */
  readonly grant?: string;
  readonly print: (text: string) => void;
}

/**
 * Runs the schema in one transaction as the configured user, who needs the right to create
 * tables. Returns whether it succeeded; what happened is printed.
 */
export async function init(config: DatabaseConfig, options: InitOptions): Promise<boolean> {
  const { print, grant } = options;
  const where = `database '${config.name}' at ${describeEndpoint(config.endpoint)}`;
  let connection: DatabaseConnection | undefined;
  try {
    connection = await DatabaseConnection.open(config, new AbortController().signal);
    const before = await readHypertable(connection);
    const statements = [
      ...schemaStatements(options),
      // Whoever has the extension wants it used.
      ...(before.version !== null && !options.timescale ? HYPERTABLE_STATEMENTS : []),
      ...(grant === undefined ? [] : grantStatements(grant)),
    ];
    // Several statements in one simple query are one transaction.
    await connection.query("SET client_min_messages = warning");
    await connection.query(statements.join(";\n"));
    const columns = await connection.readColumns();
    print(`ok       The tables sensors and sensor_data are in ${where}.\n`);
    const after = await readHypertable(connection);
    print(`ok       The table ${describeHypertable(after)}.\n`);
    if (after.isHypertable && !after.isCompressed) {
      print("note     Compression needs TimescaleDB under its community licence.\n");
    } else if (after.version === null && after.available) {
      print("note     The server has TimescaleDB: 'init --timescale' makes use of it.\n");
    }
    if (!columns.uniqueKey) {
      print(
        "PROBLEM  sensor_data was there already, and has no unique key on (sensor_id, time): " +
          "ALTER TABLE sensor_data ADD UNIQUE (sensor_id, time);\n",
      );
    }
    return columns.uniqueKey;
  } catch (error) {
    print(`PROBLEM  Cannot create the tables in ${where}: ${describeFailure(error)}.\n`);
    return false;
  } finally {
    await connection?.close();
  }
}

/** The hint that goes with a missing right is meant for the logger, which creates nothing. */
function describeFailure(error: unknown): string {
  return error instanceof DatabaseError && error.sqlState === "42501"
    ? `${describeError(error.cause)} (run it as a user who may create tables there)`
    : describeError(error);
}
