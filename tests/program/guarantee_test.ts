/**
 * Each guarantee of the program, checked on the program as it is.
 */
import { usePostgres } from "../support/harness.ts";
import { lacks } from "../support/programs.ts";
import { listGuarantees } from "./guarantees.ts";

for (const { name, programs = [], check, checkedBy } of listGuarantees(usePostgres())) {
  if (checkedBy !== undefined) continue;
  Deno.test(`run ${name}`, { ignore: lacks(...programs) }, async () => {
    await check({ options: {}, timeoutMs: 180_000 });
  });
}
