/** `deno task compile` if the base binary of the running Deno is not available. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { strToU8, zipSync } from "fflate";
import { compile } from "../../deploy/compile.ts";
import { cutBaseBinary, type Fallback } from "../../deploy/fallback_deno.ts";
import { fetchFromWheel, sha256, type Wheel } from "../../deploy/wheel.ts";
import { LOOPBACK } from "../support/ports.ts";
import { runProgram } from "../support/process.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
const SCRIPT = `${ROOT}/deploy/compile.ts`;

/** An executable like one of `deno compile`: the base, the data, and the length of the data. */
function appendData(base: string, data: string): Uint8Array<ArrayBuffer> {
  const length = new DataView(new ArrayBuffer(8));
  length.setBigUint64(0, BigInt(data.length + 8), true);
  return Uint8Array.from([...strToU8(base + data), ...new Uint8Array(length.buffer)]);
}

Deno.test("the base binary is the part before the data of deno compile", () => {
  const base = cutBaseBinary(appendData("\x7fELF base", "d3n0l4nd modules"));
  assert.equal(new TextDecoder().decode(base), "\x7fELF base");
  for (const other of [appendData("\x7fELF base", "modules"), strToU8("\x7fELF, no more")]) {
    assert.throws(() => cutBaseBinary(Uint8Array.from(other)), /not made by deno compile/);
  }
});

const PLATFORM = "manylinux_2_27_aarch64";
const MEMBER = "probe-1.0.data/scripts/probe";
const FILE_NAME = `probe-1.0-py3-none-${PLATFORM}.whl`;

/** A wheel (PEP 427) with one executable, for another platform than that of most machines. */
const ARCHIVE = Uint8Array.from(zipSync({
  [MEMBER]: strToU8("the executable"),
  "probe-1.0.dist-info/METADATA": strToU8("Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n"),
  "probe-1.0.dist-info/WHEEL": strToU8(
    `Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-${PLATFORM}\n`,
  ),
  "probe-1.0.dist-info/RECORD": strToU8(""),
}));

const WHEEL: Wheel = {
  requirement: "probe==1.0",
  platform: PLATFORM,
  fileName: FILE_NAME,
  sha256: await sha256(ARCHIVE),
  member: MEMBER,
};

async function readFrom(places: readonly string[], wheel = WHEEL): Promise<string> {
  return new TextDecoder().decode(await fetchFromWheel(wheel, places));
}

Deno.test("a wheel is read from a folder, a file or a URL, if it has the pinned content", async () => {
  using directory = withTemporaryDirectory();
  const folder = `${directory.path}/wheels`;
  Deno.mkdirSync(folder);
  Deno.writeFileSync(`${folder}/${FILE_NAME}`, ARCHIVE);
  const answer = ({ url }: Request): Response =>
    url.endsWith(`/mirror/${FILE_NAME}`)
      ? new Response(ARCHIVE)
      : new Response(null, { status: url.includes("/broken/") ? 500 : 404 });
  await using server = Deno.serve({ hostname: LOOPBACK, port: 0, onListen: () => {} }, answer);
  const origin = `http://${LOOPBACK}:${server.addr.port}`;
  for (
    const places of [
      [folder],
      [`${folder}/`],
      [`${folder}/${FILE_NAME}`],
      [`${origin}/mirror`],
      [`${origin}/mirror/${FILE_NAME}`],
      [`${folder}/other.whl`, directory.path, `${origin}/elsewhere`, folder],
    ]
  ) {
    assert.equal(await readFrom(places), "the executable", places.join(" "));
  }
  await assert.rejects(
    readFrom([directory.path, `${origin}/elsewhere`]),
    /^Error: Fetching 'probe-.*\.whl': KRAKEN_WHEELS must name a place that has it, received '.* http:.*'$/,
  );
  await assert.rejects(readFrom([`${origin}/broken`]), /HTTP status 500$/);
  const other = { ...WHEEL, sha256: await sha256(new Uint8Array(1)) };
  await assert.rejects(readFrom([folder], other), /the SHA-256 must be 6e34\w+, is \w+$/);
  await assert.rejects(
    readFrom([folder], { ...WHEEL, member: "gone" }),
    /it does not contain 'gone'$/,
  );
});

const hasPip = await runProgram("python3", { args: ["-m", "pip", "--version"] })
  .then(({ code }) => code === 0, () => false);

Deno.test("pip fetches a wheel for another platform from its configured index", {
  ignore: !hasPip && Deno.env.get("CI") !== "true",
}, async () => {
  using directory = withTemporaryDirectory();
  Deno.writeFileSync(`${directory.path}/${FILE_NAME}`, ARCHIVE);
  const fetchWithPip = async (folder: string): Promise<{ stdout: string; stderr: string }> => {
    const code = `
      import { fetchFromWheel } from "${new URL("../../deploy/wheel.ts", import.meta.url)}";
      const file = await fetchFromWheel(${JSON.stringify(WHEEL)});
      Deno.stdout.writeSync(file);`;
    return await runProgram(Deno.execPath(), {
      args: ["eval", code],
      cwd: ROOT,
      env: { KRAKEN_WHEELS: "", PIP_NO_INDEX: "1", PIP_FIND_LINKS: folder, NO_COLOR: "1" },
    });
  };
  const { stdout, stderr } = await fetchWithPip(directory.path);
  assert.equal(stdout, "the executable", stderr);
  const empty = `${directory.path}/empty`;
  Deno.mkdirSync(empty);
  const failed = await fetchWithPip(empty);
  assert.match(failed.stderr, /Fetching 'probe-.*' with pip .*KRAKEN_WHEELS.*:\n.*probe==1\.0/s);
});

/** Writes a script as a program in place of Deno. */
function writeProgram(path: string, script: string): string {
  Deno.writeTextFileSync(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return path;
}

/** The error of a Deno that cannot download its base binary. */
const NO_BASE_BINARY = `error: Writing deno compile executable to temporary file '/tmp/x'

Caused by:
    0: Setting up base binary.
    1: error sending request for url (https://example.org/denort.zip): client error (Connect)`;

Deno.test("the fallback compiles only if it is allowed and a base binary is missing", async () => {
  using directory = withTemporaryDirectory();
  const output = `${directory.path}/kraken-logger`;
  const failWith = (message: string): string =>
    writeProgram(`${directory.path}/deno`, `cat >&2 <<'END'\n${message}\nEND\nexit 1`);
  const provided: string[] = [];
  const fallback = (architecture: string): Promise<Fallback> => {
    provided.push(architecture);
    return Promise.resolve({
      // Creates an executable that prints how it was made.
      compiler: writeProgram(
        `${directory.path}/fallback`,
        `printf '#!/bin/sh\\necho "%s %s"\\n' "$DENORT_BIN" "$*" >${output}; chmod +x ${output}`,
      ),
      baseBinary: "/base",
    });
  };
  const deno = failWith(NO_BASE_BINARY);
  await assert.rejects(
    compile(ROOT, { output, deno, fallback: undefined }),
    /^Error: Compiling with Deno .* --no-fallback is set:.*Setting up base binary/s,
  );
  failWith("error: Unexpected token at file:///main.ts:1:1");
  await assert.rejects(compile(ROOT, { output, deno, fallback }), /Unexpected token/);
  assert.deepEqual(provided, []);
  assert.throws(() => Deno.statSync(output), Deno.errors.NotFound);

  failWith(NO_BASE_BINARY);
  await compile(ROOT, { output, deno, fallback });
  assert.deepEqual(provided, [Deno.build.arch]);
  const { stdout } = await runProgram(output, {});
  assert.match(stdout, /^\/base compile --no-check .* main\.ts$/m);
});

Deno.test("compile describes its options, and refuses others", async () => {
  const run = (...args: string[]): ReturnType<typeof runProgram> =>
    runProgram(Deno.execPath(), { args: ["run", "--allow-all", SCRIPT, ...args] });
  const help = await run("--help");
  assert.equal(help.code, 0);
  for (const name of ["--arch", "--no-fallback", "DENORT_BIN", "KRAKEN_WHEELS"]) {
    assert.ok(help.stdout.includes(`  ${name} `), name);
  }
  for (const args of [["--arch=riscv"], ["--fallback"], ["one", "two"]]) {
    const { code, stderr } = await run(...args);
    assert.equal(code, 1, stderr);
    assert.match(stderr, /riscv|--fallback|'two'/);
  }
});
