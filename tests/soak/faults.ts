/**
 * The faults of the soak. Each shows that it has fired before it is held for a while.
 */
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

/** What there is, whether this machine allows it or not. */
export const KINDS: readonly string[] = ALL.map(({ kind }) => kind);

/** Those that this machine allows. */
export const FAULTS: readonly Fault[] = ALL.filter(({ lacks }) => lacks === undefined);

/** What the others are, and what they need. */
export const LEFT_OUT: readonly string[] = ALL.filter(({ lacks }) => lacks !== undefined)
  .map(({ kind, lacks }) => `${kind} (needs ${lacks})`);
