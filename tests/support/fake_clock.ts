/**
 * A clock of one process that a test sets, with libfaketime. The time of day jumps, while the
 * monotonic clock continues, as it does when a real clock is set.
 */
import { findProgram, requireProgram } from "./programs.ts";

const LIBRARY = "libfaketime.so.1";

/** Whether libfaketime is installed. */
export function hasFakeClock(): boolean {
  return findProgram(LIBRARY) !== null;
}

/** A clock that shows the right time at first. */
export interface FakeClock extends Disposable {
  /** The variables that make a program use it. */
  readonly env: Readonly<Record<string, string>>;
  /** Sets it to this number of seconds after the right time; before it if negative. */
  set(offsetSeconds: number): void;
}

/** Makes a clock. */
export function createFakeClock(): FakeClock {
  const library = requireProgram(LIBRARY);
  const directory = Deno.makeTempDirSync({ prefix: "kraken-test-" });
  const path = `${directory}/offset`;
  const set = (offsetSeconds: number): void => {
    const sign = offsetSeconds < 0 ? "-" : "+";
    Deno.writeTextFileSync(`${path}.new`, `${sign}${Math.abs(offsetSeconds)}\n`);
    // libfaketime reads the file whenever the program reads the clock, and must not see half of it.
    Deno.renameSync(`${path}.new`, path);
  };
  set(0);
  return {
    env: {
      LD_PRELOAD: library,
      FAKETIME_TIMESTAMP_FILE: path,
      FAKETIME_NO_CACHE: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
    },
    set,
    [Symbol.dispose]: () => Deno.removeSync(directory, { recursive: true }),
  };
}
