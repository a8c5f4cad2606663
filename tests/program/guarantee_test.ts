/**
 * Each guarantee, checked on the unchanged program.
 */
import { usePostgres } from "../support/harness.ts";
import { checkGuarantee, listGuarantees } from "./guarantees.ts";

for (const guarantee of listGuarantees(usePostgres())) {
  if (!guarantee.isSlow) checkGuarantee(guarantee);
}
