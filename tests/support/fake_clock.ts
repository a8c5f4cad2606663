/**
 * A clock of one process that a test sets, with libfaketime: the time of day jumps, while what
 * measures durations goes on, as it does when a real clock is set.
 */
import { isFile } from "./programs.ts";

const LIBRARIES = [
  "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
  "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
  "/usr/lib64/faketime/libfaketime.so.1",
];

const library = LIBRARIES.find(isFile);

/** Where libfaketime is missing, tests with it are left out, except in CI: there they fail. */
export const withoutFakeClock: boolean = library === undefined && Deno.env.get("CI") !== "true";

/** A clock that is right in the beginning. */
export interface FakeClock extends Disposable {
  /** The variables that make a program go by it. */
  readonly env: Readonly<Record<string, string>>;
  /** Sets it to so many seconds after the right time, or before it where negative. */
  set(offsetSeconds: number): void;
}

/** Makes a clock. */
export function createFakeClock(): FakeClock {
  if (library === undefined) throw new Error("Faking a clock: libfaketime is not installed");
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
