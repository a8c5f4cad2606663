/**
 * The helper programs of the benchmark. Each runs in a separate process, so that it does not slow
 * down what is measured, and its CPU time is not counted.
 */
import { fileURLToPath } from "node:url";
import { TestProcess } from "../tests/support/process.ts";

/** The file names of the programs. */
export type BenchProgram = "backlog_program" | "receiver_program" | "single_insert_program";

/** Starts a program with one argument, which it reads with {@linkcode readJob}. */
export function startProgram(program: BenchProgram, job: unknown): TestProcess {
  const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));
  const args = [
    "run",
    "--allow-all",
    "--quiet",
    "--no-check",
    "--config",
    path("../tests/deno.json"),
  ];
  return TestProcess.start(Deno.execPath(), {
    args: [...args, path(`./${program}.ts`), JSON.stringify(job)],
  });
}

/** The argument that the program was started with. */
export function readJob<Job>(): Job {
  return JSON.parse(Deno.args[0] ?? "null") as Job;
}

/** Prints the result of the program as a line of JSON. */
export function printResult(result: unknown): void {
  const bytes = new TextEncoder().encode(`${JSON.stringify(result)}\n`);
  for (let written = 0; written < bytes.length;) {
    written += Deno.stdout.writeSync(bytes.subarray(written));
  }
}

/** Waits for the line that {@linkcode printResult} prints. */
export async function readResult<Result>(
  process: TestProcess,
  timeoutMs: number,
): Promise<Result> {
  return JSON.parse(await process.waitForLine(/^[{\d]/, { timeoutMs })) as Result;
}
