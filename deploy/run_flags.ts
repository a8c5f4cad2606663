/**
 * What the program may do and how its engine is set, said once: for `deno run` as for the compiled
 * binary, which has both built in.
 */

/** Flags of `deno run` and `deno compile`. */
export const RUN_FLAGS: readonly string[] = [
  "--allow-net",
  "--allow-env",
  "--allow-read",
  "--allow-write",
  // Garbage is collected earlier than the engine would on its own: readings live just long enough
  // to be taken for long-lived. Halves the peak memory at some tenths of the processor time.
  "--v8-flags=--max-semi-space-size=4,--heap-growing-percent=50",
];
