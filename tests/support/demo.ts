/** Starts the demo, and reads what it has printed. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { type ProgramResult, runProgram } from "../support/process.ts";

export const DEMO = fileURLToPath(new URL("../../demo/main.ts", import.meta.url));
const SUMMARY =
  /^(\d+) readings published, (\d+) rows in the database: each is stored exactly once/m;

export function demoArgs(...args: readonly string[]): string[] {
  return ["run", "--quiet", "--allow-all", DEMO, ...args];
}

export async function runDemo(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<ProgramResult> {
  return await runProgram(Deno.execPath(), { args: demoArgs(...args), env });
}

export function assertAllStored(output: string): void {
  const [, published, rows] = SUMMARY.exec(output) ?? [];
  assert.ok(Number(published) > 0, output);
  assert.equal(rows, published);
}
