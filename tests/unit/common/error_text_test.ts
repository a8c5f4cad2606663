/** Errors in words. */
import assert from "node:assert/strict";
import { describeError } from "../../../lib/common/error_text.ts";

function withCode(code: string, message = "connect X"): Error {
  return Object.assign(new Error(message), { code });
}

Deno.test("a system error is described in words", () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ["ECONNREFUSED", /^connection refused \(/],
    ["ECONNRESET", /^the connection was reset by the peer$/],
    ["ETIMEDOUT", /^no answer in time$/],
    ["ENOTFOUND", /^the host name is unknown$/],
    ["EAI_AGAIN", /^the host name cannot be resolved at the moment$/],
    ["EHOSTUNREACH", /^no route to the host$/],
  ];
  for (const [code, words] of cases) assert.match(describeError(withCode(code)), words);
});

Deno.test("any other error is described by its message without the full stop", () => {
  const cases: readonly (readonly [unknown, string])[] = [
    [withCode("EWHATEVER"), "connect X"],
    [new Error("It broke."), "It broke"],
    [new Error("It broke. Twice"), "It broke. Twice"],
  ];
  for (const [error, words] of cases) assert.equal(describeError(error), words);
});

Deno.test("an error without a message is described by its code, or by its name", () => {
  assert.equal(describeError(withCode("EODD", "")), "EODD");
  assert.equal(describeError(new TypeError("")), "TypeError");
  assert.equal(describeError(Object.assign(new Error("."), { code: "EODD" })), "EODD");
});

Deno.test("what is thrown although it is no error is described by its text", () => {
  const cases: readonly (readonly [unknown, string])[] = [
    ["text", "text"],
    [undefined, "undefined"],
    [7, "7"],
  ];
  for (const [thrown, words] of cases) assert.equal(describeError(thrown), words);
});

Deno.test("several errors are described one after the other, each text once", () => {
  const refusals = [withCode("ECONNREFUSED"), withCode("ECONNREFUSED")];
  assert.match(describeError(new AggregateError(refusals)), /^connection re[^;]*$/);
  assert.equal(describeError(new AggregateError([new Error("a"), new Error("b.")])), "a; b");
  assert.equal(describeError(new AggregateError([], "All failed.")), "All failed");
});
