/** Output of programs that belong to the tests, such as the test runner and the benchmark. */

/** Writes to standard output. */
export function print(text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let written = 0; written < bytes.length;) {
    written += Deno.stdout.writeSync(bytes.subarray(written));
  }
}

/** Writes to standard error. */
export function printError(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(text));
}
