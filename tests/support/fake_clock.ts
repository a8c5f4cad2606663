/**
 * A clock of one process that a test sets, with libfaketime: the time of day jumps, while what
 * measures durations goes on, as it does when a real clock is set.
 */
import { findProgram, requireProgram } from "./programs.ts";

const LIBRARY = "libfaketime.so.1";

/** Says whether libfaketime is installed. */
export function hasFakeClock(): boolean {
  return findProgram(LIBRARY) !== null;
}

/** A clock that is right in the beginning. */
export interface FakeClock extends Disposable {
  /** The variables that make a program go by it. */
  readonly env: Readonly<Record<string, string>>;
  /** Sets it to so many seconds after the right time, or before it where negative. */
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
    // It is read again at every look at the clock, half written too.
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
