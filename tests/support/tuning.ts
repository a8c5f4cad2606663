/** Shorter timings and lower limits for the program under test, sources and binary alike. */
import { type Tuning, TUNING_VARIABLE } from "../../lib/config/tuning.ts";
import type { LoggerEnv } from "./logger_process.ts";

/** The variable that sets them; the logger logs a warning about it at its start. */
export function tune(tuning: Partial<Tuning>): LoggerEnv {
  return { [TUNING_VARIABLE]: JSON.stringify(tuning) };
}
