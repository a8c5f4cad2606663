/**
 * The compiled binary in an environment like a container: an unprivileged user, and a read-only file
 * system with the files of distroless/cc.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { loggerEnv } from "../support/logger_process.ts";
import { LOGGER_PASSWORD } from "../support/postgres_database.ts";
import { type ProcessEnd, runProgram, runSuccessfully, TestProcess } from "../support/process.ts";
import { lacksMount } from "../faults/small_disk.ts";
import { leaveOut } from "../support/left_out.ts";
import { lacks } from "../support/programs.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import { findFreePort } from "../support/ports.ts";
import { publishReadings } from "../support/publisher.ts";
import { expectStored, makeReadings } from "../support/readings.ts";
import {
  startTellingMosquitto,
  usePostgres,
  waitForRows,
  waitForSubscription,
} from "../support/harness.ts";

const BINARY = Deno.env.get("KRAKEN_LOGGER_BINARY");
const postgres = usePostgres();

/** The files of distroless/cc that a program can use. */
const PACKAGES = ["libc6", "libgcc-s1", "libstdc++6", "tzdata", "ca-certificates", "netbase"];

/** The user `nonroot` of distroless. */
const NONROOT = "65532:65532";

/** A directory with the files of distroless/cc and the binary. The caller disposes it. */
class Container implements Disposable {
  readonly #root = Deno.makeTempDirSync({ prefix: "kraken-test-" });

  static async create(binary: string): Promise<Container> {
    const container = new Container();
    await container.#fill(binary);
    return container;
  }

  async #fill(binary: string): Promise<void> {
    const root = this.#root;
    Deno.chmodSync(root, 0o755);
    for (
      const name of [
        ...["proc", "dev", "etc", "run/secrets", "usr/local/bin", "usr/lib", "usr/lib64"],
        "var/lib/kraken-logger",
      ]
    ) {
      Deno.mkdirSync(`${root}/${name}`, { recursive: true });
    }
    const listed = await runSuccessfully("dpkg", { args: ["-L", ...PACKAGES] });
    const paths = listed.split("\n").filter((path) => /^\/(usr\/)?(lib|share\/zoneinfo)/.test(path))
      .filter((path) => !path.includes("/gconv/"));
    await runSuccessfully("/bin/sh", {
      args: [
        "-c",
        'tar -cf - --no-recursion -- "$@" 2>/dev/null | tar -xf - -C "$0"',
        root,
        ...paths,
      ],
      cwd: "/",
    });
    Deno.writeTextFileSync(
      `${root}/etc/passwd`,
      "nonroot:x:65532:65532::/home/nonroot:/sbin/nologin\n",
    );
    // Docker creates this file.
    Deno.writeTextFileSync(`${root}/etc/hosts`, "127.0.0.1 localhost\n");
    Deno.copyFileSync(binary, `${root}/usr/local/bin/kraken-logger`);
  }

  /** Provides a file as Docker does with secrets. */
  addSecret(name: string, content: string): string {
    Deno.writeTextFileSync(`${this.#root}/run/secrets/${name}`, content, { mode: 0o444 });
    return `/run/secrets/${name}`;
  }

  /** Starts the binary; its mounts end with it. */
  start(args: readonly string[], env: Readonly<Record<string, string>> = {}): TestProcess {
    const script = `set -e
      root=$0
      mount --make-rprivate /
      mount --bind "$root" "$root"
      mount -o remount,bind,ro "$root"
      mount -t proc proc "$root/proc"
      mount -t tmpfs -o uid=65532,gid=65532,mode=700 tmpfs "$root/var/lib/kraken-logger"
      mount --rbind /dev "$root/dev"
      cd /
      exec chroot --userspec=${NONROOT} --groups= "$root" /usr/local/bin/kraken-logger "$@"`;
    return TestProcess.start("unshare", {
      args: ["--mount", "--pid", "--fork", "/bin/sh", "-c", script, this.#root, ...args],
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", ...env },
      clearEnv: true,
    });
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.#root, { recursive: true });
  }
}

/** The only child of a process. */
function childOf(pid: number): number {
  return Number(Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`));
}

/** Whether a test must be left out because it needs the binary, for `ignore`. */
function lacksBinary(): boolean {
  return !BINARY &&
    leaveOut("KRAKEN_LOGGER_BINARY is not set, and only the binary has this behavior");
}

async function runToEnd(process: TestProcess): Promise<ProcessEnd> {
  await using running = process;
  return await running.finished();
}

Deno.test("the binary runs in a read-only distroless container as an unprivileged user", {
  ignore: lacksBinary() || lacksMount() || lacks("mosquitto", "dpkg", "unshare", "mount"),
}, async () => {
  using container = await Container.create(Deno.realPathSync(BINARY ?? ""));
  const version = container.start(["--version"]);
  assert.equal((await runToEnd(version)).code, 0, version.tail());
  assert.match(version.tail(), /^kraken-logger \d+\.\d+\.\d+$/);
  const schema = container.start(["schema", "--timescale"]);
  assert.equal((await runToEnd(schema)).code, 0, schema.tail());
  assert.match(schema.tail(), /CREATE TABLE IF NOT EXISTS sensor_data/);
  const wrong = container.start(["run"]);
  assert.equal((await runToEnd(wrong)).code, 78, wrong.tail());

  await using broker = await startTellingMosquitto();
  const database = await postgres.createDatabase();
  const { DATABASE_PASSWORD: _, ...env } = loggerEnv({ database, broker }, {
    // By name, so that the resolver of the C library is used.
    DATABASE_HOST: "localhost",
    MQTT_HOST: "localhost",
    DATABASE_PASSWORD_FILE: container.addSecret("database_password", `${LOGGER_PASSWORD}\n`),
    TZ: "Asia/Kolkata",
    SPOOL_DIRECTORY: "/var/lib/kraken-logger",
    HTTP_PORT: String(findFreePort()),
  });
  const tooEarly = container.start(["healthcheck"], env);
  assert.equal((await runToEnd(tooEarly)).code, 1, tooEarly.tail());
  assert.match(tooEarly.tail(), /^No answer from the logger at .*: connection refused/);
  await using logger = container.start(["run"], env);
  const line = await logger.waitForLine("Connected to MQTT broker");
  const ageMs = Date.now() - Date.parse(`${line.slice(0, 10)}T${line.slice(11, 23)}+05:30`);
  assert.ok(Math.abs(ageMs) < 60_000, `not in the configured time zone: ${line}`);
  await waitForSubscription(broker);
  const pid = childOf(logger.pid);
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  assert.match(status, /^Uid:\t65532\t65532\t65532\t65532$/m);
  // Process 1 of the container: the kernel does not end it by a signal without a handler.
  assert.match(status, /^NSpid:\t\d+\t1$/m);
  const healthy = container.start(["healthcheck"], env);
  assert.equal((await runToEnd(healthy)).code, 0, healthy.tail());
  assert.equal(healthy.tail(), "ok");
  const readings = makeReadings({ count: 500 });
  await publishReadings(broker, readings);
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  Deno.kill(pid, "SIGTERM");
  assert.equal((await logger.finished()).code, 0, logger.tail());
});

/** The architectures of images, with their numbers in the header of an executable (elf(5)). */
const MACHINES = { amd64: 62, arm64: 183 } as const;

/** The smallest file that `deno compile` accepts as a Linux executable, for this machine type. */
function fakeBaseBinary(machine: number): Uint8Array<ArrayBuffer> {
  const headerBytes = 64;
  const segmentBytes = 56;
  const page = 4096;
  const view = new DataView(new ArrayBuffer(page));
  // Magic number, 64 bits, little endian, version.
  view.setUint32(0, 0x7f454c46);
  view.setUint32(4, 0x02010100);
  const EXECUTABLE = 2;
  const halves = [[16, EXECUTABLE], [18, machine], [20, 1], [52, headerBytes]] as const;
  for (const [offset, value] of halves) view.setUint16(offset, value, true);
  view.setBigUint64(32, BigInt(headerBytes), true);
  // One loaded segment of one page, aligned to pages.
  view.setUint16(54, segmentBytes, true);
  view.setUint16(56, 1, true);
  view.setUint32(headerBytes, 1, true);
  for (const offset of [32, 40, 48]) view.setBigUint64(headerBytes + offset, BigInt(page), true);
  return new Uint8Array(view.buffer);
}

Deno.test("the binary is compiled for another architecture than that of the machine", async () => {
  using directory = withTemporaryDirectory();
  const base = `${directory.path}/denort`;
  const output = `${directory.path}/kraken-logger`;
  const [foreign, own] = Deno.build.arch === "aarch64"
    ? ["amd64", "arm64"] as const
    : ["arm64", "amd64"] as const;
  const compile = async (machine: number): Promise<{ code: number; stderr: string }> => {
    Deno.writeFileSync(base, fakeBaseBinary(machine));
    const script = fileURLToPath(new URL("../../deploy/compile.ts", import.meta.url));
    return await runProgram(Deno.execPath(), {
      args: ["run", "--allow-all", script, `--arch=${foreign}`, output],
      env: { DENORT_BIN: base },
    });
  };
  const { code, stderr } = await compile(MACHINES[foreign]);
  assert.equal(code, 0, stderr);
  assert.match(
    stderr,
    /kraken-logger: for \w+-unknown-linux-gnu, not started on this machine, \d+ MB$/m,
  );
  const binary = Deno.readFileSync(output);
  assert.equal(new DataView(binary.buffer).getUint16(18, true), MACHINES[foreign]);
  // It contains the program.
  assert.ok(new TextDecoder("latin1").decode(binary).includes("The configuration is invalid"));
  const wrong = await compile(MACHINES[own]);
  assert.equal(wrong.code, 1, wrong.stderr);
  assert.match(wrong.stderr, /is for another architecture/);
});

Deno.test("the image is built on the architecture of the machine, for the requested one", () => {
  const dockerfile = Deno.readTextFileSync(new URL("../../Dockerfile", import.meta.url));
  const stages = dockerfile.split(/^(?=FROM )/m).slice(1);
  for (const stage of stages) {
    const isBuild = /^FROM --platform=\$BUILDPLATFORM denoland\/deno:[\d.]+ AS build$/m.test(stage);
    // Another stage would run its commands emulated, or not at all.
    assert.equal(/^RUN /m.test(stage), isBuild, stage);
    if (isBuild) {
      assert.match(stage, /^ARG TARGETARCH\nRUN deno task compile --arch=\$\{TARGETARCH\} /m);
    }
  }
  assert.equal(stages.filter((stage) => /^RUN /m.test(stage)).length, 1);
});
