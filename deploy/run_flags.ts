/**
 * What the program may do, said once: for `deno run` as for the compiled binary, which has its
 * permissions built in.
 */

/** Flags of `deno run` and `deno compile`. */
export const RUN_FLAGS: readonly string[] = [
  "--allow-net",
  "--allow-env",
  "--allow-read",
];
