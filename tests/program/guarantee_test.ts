/**
 * Each guarantee of the program, checked on the program as it is.
 */
import { usePostgres } from "../support/harness.ts";
import { checkGuarantee, listGuarantees } from "./guarantees.ts";

for (const guarantee of listGuarantees(usePostgres())) {
  if (!guarantee.isSlow) checkGuarantee(guarantee);
}
