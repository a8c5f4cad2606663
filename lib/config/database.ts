/** The settings of the database. */

import type { Endpoint } from "../common/endpoint.ts";
import { type Certificates, parseCertificates } from "./certificate_files.ts";
import type { Settings } from "./settings.ts";
import type { Tuning } from "./tuning.ts";

/** The modes of libpq's `sslmode` (PostgreSQL manual, "SSL Support") except the deprecated `allow`. */
export type SslMode = "disable" | "prefer" | "require" | "verify-ca" | "verify-full";

/** How to connect to the database. */
export interface DatabaseConfig extends Certificates {
  readonly endpoint: Endpoint;
  readonly user: string;
  readonly password: string;
  readonly name: string;
  readonly sslMode: SslMode;
  /** Number of connections that insert concurrently. */
  readonly connections: number;
  readonly tuning: Tuning;
}

/** Reads the settings; their problems are collected in `settings`. */
export function parseDatabase(settings: Settings): DatabaseConfig {
  const defaultPort = settings.integer("DATABASE_PORT", { min: 1, max: 65535 }) ?? 5432;
  const host = settings.mandatory("DATABASE_HOST");
  const endpoint = host === undefined
    ? undefined
    : settings.endpoint(host, { variable: "DATABASE_HOST", defaultPort, zeroIsDefault: false });
  const sslMode = settings.choice("DATABASE_SSLMODE", {
    disable: "disable",
    prefer: "prefer",
    require: "require",
    "verify-ca": "verify-ca",
    "verify-full": "verify-full",
  }) ?? "prefer";
  // verify-ca ignores the host name, so with the many authorities of a system any certificate passes.
  if (sslMode === "verify-ca" && settings.text("DATABASE_CA_FILE") === undefined) {
    const rule = "verify-ca requires DATABASE_CA_FILE (verify-full works with the system's)";
    settings.problem("DATABASE_SSLMODE", rule);
  }
  return {
    endpoint: endpoint ?? { host: "", port: defaultPort },
    user: settings.mandatory("DATABASE_USER") ?? "",
    password: settings.mandatory("DATABASE_PASSWORD") ?? "",
    name: settings.text("DATABASE_NAME") ?? "sensors",
    sslMode,
    ...parseCertificates(settings, "DATABASE"),
    connections: settings.integer("DATABASE_CONNECTIONS", { min: 1, max: 64 }) ?? 2,
    tuning: settings.tuning,
  };
}
