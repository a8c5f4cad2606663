/** `kraken-logger init`: creates the tables in the configured database. */

import { describeError } from "../common/error_text.ts";
import { describeEndpoint } from "../common/endpoint.ts";
import type { DatabaseConfig } from "../config/database.ts";
import { DatabaseConnection } from "../database/connection.ts";
import { DatabaseError } from "../database/errors.ts";
import { describeHypertable, readHypertable } from "../database/hypertable.ts";
import { grantStatements, HYPERTABLE_STATEMENTS, schemaStatements } from "../database/schema.ts";

/** What to create, and where to print the outcome. */
export interface InitOptions {
  /** Make `sensor_data` a TimescaleDB hypertable. */
  readonly timescale: boolean;
  /** Role to grant the privileges that the logger needs. */
  readonly grant?: string;
  readonly print: (text: string) => void;
}

/**
 * Runs the schema in one transaction as the configured user, who must be allowed to create tables.
 * Prints the outcome. Returns whether the tables exist now and have the unique key.
 */
export async function init(config: DatabaseConfig, options: InitOptions): Promise<boolean> {
  const { print, grant } = options;
  const where = `database '${config.name}' at ${describeEndpoint(config.endpoint)}`;
  try {
    await using connection = await DatabaseConnection.open(config);
    const before = await readHypertable(connection);
    const statements = [
      ...schemaStatements(options),
      // An installed extension is meant to be used.
      ...(before.version !== null && !options.timescale ? HYPERTABLE_STATEMENTS : []),
      ...(grant === undefined ? [] : grantStatements(grant)),
    ];
    // Several statements in one simple query are one transaction.
    await connection.query("SET client_min_messages = warning");
    await connection.query(statements.join(";\n"));
    const columns = await connection.readColumns();
    print(`ok       The tables sensors and sensor_data exist in ${where}.\n`);
    const after = await readHypertable(connection);
    print(`ok       The table ${describeHypertable(after)}.\n`);
    if (after.isHypertable && !after.isCompressed) {
      print("note     Compression requires TimescaleDB with its Community license.\n");
    } else if (after.version === null && after.available) {
      print(
        "note     TimescaleDB is available on the server. To use it, run 'init --timescale'.\n",
      );
    }
    if (!columns.uniqueKey) {
      print(
        "PROBLEM  The existing table sensor_data has no unique key on (sensor_id, time). Add it: " +
          "ALTER TABLE sensor_data ADD UNIQUE (sensor_id, time);\n",
      );
    }
    return columns.uniqueKey;
  } catch (error) {
    print(`PROBLEM  Cannot create the tables in ${where}: ${describeFailure(error)}.\n`);
    return false;
  }
}

/** Replaces the hint for a missing privilege: that one is for the logger, which creates no tables. */
function describeFailure(error: unknown): string {
  return error instanceof DatabaseError && error.sqlState === "42501"
    ? `${describeError(error.cause)} (run init as a user who may create tables there)`
    : describeError(error);
}
