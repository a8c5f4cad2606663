/**
 * CPU time of the three that work together: a program, the broker and the database.
 */
import type { Stage } from "./stage.ts";
import { cpuSeconds, findChild } from "./usage.ts";

/** CPU time in seconds. */
export interface CpuUse {
  readonly program: number;
  readonly broker: number;
  readonly database: number;
}

/** What each has used since it was started; a program that is not there yet has used nothing. */
export function readCpuUse({ postgresPid }: Stage, programPid?: number): CpuUse {
  return {
    program: programPid === undefined ? 0 : cpuSeconds(programPid),
    broker: cpuSeconds(findChild("mosquitto")),
    database: cpuSeconds(postgresPid),
  };
}

/** What each has used from one reading to the next. */
export function subtractCpuUse(after: CpuUse, before: CpuUse): CpuUse {
  return {
    program: after.program - before.program,
    broker: after.broker - before.broker,
    database: after.database - before.database,
  };
}
