/**
 * Counter-tests: the check of each guarantee fails on a program in which the guarantee is broken on
 * purpose.
 */
import assert from "node:assert/strict";
import { breakSources, lacksSources } from "../support/broken_sources.ts";
import { usePostgres } from "../support/harness.ts";
import { lacks } from "../support/programs.ts";
import { listGuarantees } from "./guarantees.ts";

for (
  const { name, programs = [], check, breakage, breakages, complaint } of listGuarantees(
    usePostgres(),
  )
) {
  Deno.test(`${breakage} is noticed: run no longer ${name}`, {
    ignore: lacks(...programs) || lacksSources(),
  }, async () => {
    using sources = breakSources(breakages);
    await assert.rejects(
      check({ options: { sources: sources.path }, timeoutMs: 5000 }),
      complaint,
    );
  });
}
