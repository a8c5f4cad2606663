/** How `.env` is parsed, and the system's reasons for an error. */
import assert from "node:assert/strict";
import { parse as parseWithDotenv } from "dotenv";
import fc from "fast-check";
import { parseDotEnv, systemReason } from "../../../lib/config/environment.ts";

Deno.test("a '#' within a value of .env is part of it, and starts a comment after white space", () => {
  const cases: [string, Record<string, string>][] = [
    ["MQTT_TOPIC=lab/#", { MQTT_TOPIC: "lab/#" }],
    ["MQTT_TOPIC=#", { MQTT_TOPIC: "#" }],
    ["MQTT_TOPIC=lab/#,site/# # both", { MQTT_TOPIC: "lab/#,site/#" }],
    ["DATABASE_PASSWORD=a#b", { DATABASE_PASSWORD: "a#b" }],
    ["DATABASE_PASSWORD=a'b#c", { DATABASE_PASSWORD: "a'b#c" }],
    ['DATABASE_PASSWORD=a"b#c`d#', { DATABASE_PASSWORD: 'a"b#c`d#' }],
    ["DATABASE_PASSWORD='a'b#c", { DATABASE_PASSWORD: "'a'b#c" }],
    ["DATABASE_PASSWORD=a#b\\", { DATABASE_PASSWORD: "a#b\\" }],
    ["DATABASE_PASSWORD=a\\n#b # c#d", { DATABASE_PASSWORD: "a\\n#b" }],
    ["DATABASE_PASSWORD = a #b", { DATABASE_PASSWORD: "a" }],
    ["DATABASE_PASSWORD=a\t#b", { DATABASE_PASSWORD: "a" }],
    ["DATABASE_PASSWORD= # none", { DATABASE_PASSWORD: "" }],
    ["DATABASE_PASSWORD='a #b' # c", { DATABASE_PASSWORD: "a #b" }],
    ["DATABASE_PASSWORD='a#b'#c", { DATABASE_PASSWORD: "a#b" }],
    ['A="one#\nB=two#\n# three" # four\nC=x#y', { A: "one#\nB=two#\n# three", C: "x#y" }],
    ['A="open#x\nB="y#z"', { A: '"open#x', B: "y#z" }],
    ["export MQTT_TOPIC=lab/# # all", { MQTT_TOPIC: "lab/#" }],
    ["# A=b#c\n  #B=c#d\n\nC: d#e\r\nD=#f\r\nE='g#h' # i\r\n", { C: "d#e", D: "#f", E: "g#h" }],
    ["\ufeffA=b#c", { A: "b#c" }],
    ["A=😀#😀", { A: "😀#😀" }],
  ];
  for (const [text, expected] of cases) {
    assert.deepEqual({ ...parseDotEnv(text) }, expected, JSON.stringify(text));
    const windows = text.replaceAll(/\r?\n/g, "\r\n");
    assert.deepEqual({ ...parseDotEnv(windows) }, expected, JSON.stringify(windows));
  }
});

Deno.test("a value without blanks needs no quotes in .env, and other files parse as with dotenv", () => {
  const value = fc.stringMatching(/^[!#-&(-_a-~äµ€][!-~äµ€]*$/);
  fc.assert(fc.property(value, value, (first, second) => {
    const parsed = parseDotEnv(`A=${first}\nexport B=${second} # A=${first}\nC=c`);
    assert.deepEqual({ ...parsed }, { A: first, B: second, C: "c" });
  }));
  const piece = fc.constantFrom("A", "=", "b", " #", "\n#", "'", '"', "`", "\\", "\n", "\r\n", " ");
  fc.assert(fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
    const text = pieces.join("");
    assert.deepEqual(parseDotEnv(text), parseWithDotenv(text));
  }));
});

Deno.test("a reason is the text of the system, without the additions of the runtime", () => {
  const reason = (error: Error): string => systemReason(error);
  assert.equal(
    reason(new Deno.errors.NotFound("No such file or directory (os error 2): stat '/gone'")),
    "No such file or directory",
  );
  const message = 'Requires all access to "/dev/stdin", run again with the --allow-all flag';
  assert.equal(
    reason(new Deno.errors.NotCapable(message)),
    "only ordinary files and directories can be used here",
  );
});
