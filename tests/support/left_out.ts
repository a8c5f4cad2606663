/**
 * Tests that are left out, and why: `tests/run.ts` prints one line for each reason.
 */

/** Names the file that collects a line for each test that is left out. */
export const LEFT_OUT_VARIABLE = "KRAKEN_TEST_LEFT_OUT";

/** Records that a test is left out. Returns `true`, for `ignore`. */
export function leaveOut(reason: string): true {
  const path = Deno.env.get(LEFT_OUT_VARIABLE);
  if (path) Deno.writeTextFileSync(path, `${reason}\n`, { append: true });
  return true;
}

/** One line for each reason in the file, the most frequent one first. */
export function summarizeLeftOut(text: string): string[] {
  const counts = new Map<string, number>();
  for (const reason of text.split("\n").filter((line) => line !== "")) {
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
  return [...counts].sort(([, a], [, b]) => b - a).map(([reason, count]) =>
    `${count} ${count === 1 ? "test" : "tests"} left out: ${reason}`
  );
}
