/** The faults of the soak. The effect of each is observed before it is held for a while. */
import { BROKER_FAULTS } from "./broker_faults.ts";
import { DATABASE_FAULTS } from "./database_faults.ts";
import type { Fault } from "./fault.ts";
import { LINK_FAULTS } from "./link_faults.ts";
import { LOGGER_FAULTS } from "./logger_faults.ts";
import { SPOOL_FAULTS } from "./spool_faults.ts";

const ALL = [
  ...LOGGER_FAULTS,
  ...SPOOL_FAULTS,
  ...DATABASE_FAULTS,
  ...BROKER_FAULTS,
  ...LINK_FAULTS,
];

/** All faults, including those that this machine does not support. */
export const KINDS: readonly string[] = ALL.map(({ kind }) => kind);

/** The faults that this machine supports. */
export const FAULTS: readonly Fault[] = ALL.filter(({ lacks }) => lacks === undefined);

/** The other faults, and their requirements. */
export const LEFT_OUT: readonly string[] = ALL.filter(({ lacks }) => lacks !== undefined)
  .map(({ kind, lacks }) => `${kind} (needs ${lacks})`);
