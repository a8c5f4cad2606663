/**
 * Missing programs of the tests.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { LEFT_OUT_VARIABLE, summarizeLeftOut } from "./left_out.ts";
import { type ProgramResult, runProgram } from "./process.ts";
import { withTemporaryDirectory } from "./temporary_directory.ts";

const PROGRAMS = import.meta.resolve("./programs.ts");

/** Runs a script without `/usr/bin` in its path: psql is only there. */
async function runWithoutPath(
  path: string,
  env: Readonly<Record<string, string>> = {},
  args: readonly string[] = [],
): Promise<ProgramResult> {
  const config = fileURLToPath(new URL("../../deno.json", import.meta.url));
  return await runProgram(Deno.execPath(), {
    args: ["run", "--allow-all", "--quiet", "--no-check", "--config", config, path, ...args],
    env: { PATH: "/nowhere", CI: "", ...env },
  });
}

Deno.test("a test whose program is missing is left out; in CI, it is an error", async () => {
  using directory = withTemporaryDirectory();
  const script = `${directory.path}/script.ts`;
  const leftOut = `${directory.path}/left_out`;
  Deno.writeTextFileSync(
    script,
    `import { lacks } from ${JSON.stringify(PROGRAMS)};
    for (let test = 1; test <= 2; test++) console.log(lacks("psql"));`,
  );
  const env = { [LEFT_OUT_VARIABLE]: leftOut };
  assert.equal((await runWithoutPath(script, env)).stdout, "true\ntrue\n");
  assert.deepEqual(summarizeLeftOut(Deno.readTextFileSync(leftOut)), [
    "2 tests left out: 'psql' is not installed (Debian package postgresql-client)",
  ]);
  const { code, stderr } = await runWithoutPath(script, { ...env, CI: "true" });
  assert.equal(code, 1);
  assert.match(stderr, /'psql' is not installed \(Debian package postgresql-client\)/);
});

Deno.test("the list of packages to install names those of the missing programs", async () => {
  const { code, stdout, stderr } = await runWithoutPath(fileURLToPath(PROGRAMS), {}, [
    "--missing-packages",
  ]);
  assert.equal(code, 0, stderr);
  const packages = stdout.trimEnd().split("\n");
  assert.ok(packages.includes("postgresql-client"), stdout);
  assert.equal(new Set(packages).size, packages.length);
});

Deno.test("left out tests are counted by reason, the most frequent one first", () => {
  assert.deepEqual(summarizeLeftOut("b\na\na\n"), [
    "2 tests left out: a",
    "1 test left out: b",
  ]);
  assert.deepEqual(summarizeLeftOut(""), []);
});
