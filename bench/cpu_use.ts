/** CPU time of the three processes: the measured program, the broker and the database. */
import type { Stage } from "./stage.ts";
import { cpuSeconds, findChild } from "./usage.ts";

/** CPU time in seconds. */
export interface CpuUse {
  readonly program: number;
  readonly broker: number;
  readonly database: number;
}

/** CPU time of each since its start; 0 for a program that has not been started. */
export function readCpuUse({ postgresPid }: Stage, programPid?: number): CpuUse {
  return {
    program: programPid === undefined ? 0 : cpuSeconds(programPid),
    broker: cpuSeconds(findChild("mosquitto")),
    database: cpuSeconds(postgresPid),
  };
}

/** CPU time of each between two measurements. */
export function subtractCpuUse(after: CpuUse, before: CpuUse): CpuUse {
  return {
    program: after.program - before.program,
    broker: after.broker - before.broker,
    database: after.database - before.database,
  };
}
