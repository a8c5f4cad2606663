/**
 * Counter-tests: the check of each guarantee fails on a program that deliberately breaks it. The
 * guarantees with a slow check are also checked here.
 */
import assert from "node:assert/strict";
import { breakSources, lacksSources } from "../support/broken_sources.ts";
import { usePostgres } from "../support/harness.ts";
import { lacks } from "../support/programs.ts";
import { checkGuarantee, listGuarantees } from "./guarantees.ts";

for (const guarantee of listGuarantees(usePostgres())) {
  const { name, programs = [], check, breakage, breakages, complaint } = guarantee;
  if (guarantee.isSlow) checkGuarantee(guarantee);

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
