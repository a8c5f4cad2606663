/**
 * Commands of the documents that need neither broker nor database, run as they are printed. Programs
 * of the test in the search path replace those that only an administrator may run.
 */
import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { dirname } from "node:path";
import { readCodeBlocks, readDocument, readSection, ROOT } from "../support/documents.ts";
import { runSuccessfully } from "../support/process.ts";
import { lacks } from "../support/programs.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";

/** Runs shell commands in a directory; programs of the test are first in the search path. */
async function runScript(
  script: string,
  { cwd, programs, input = "" }: {
    readonly cwd: string;
    readonly programs: Readonly<Record<string, string>>;
    readonly input?: string;
  },
): Promise<string> {
  using directory = withTemporaryDirectory();
  for (const [name, text] of Object.entries(programs)) {
    Deno.writeTextFileSync(`${directory.path}/${name}`, `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  }
  const file = `${directory.path}/input`;
  Deno.writeTextFileSync(file, input);
  return await runSuccessfully("/bin/sh", {
    args: ["-euc", `exec <'${file}'\n${script}`],
    cwd,
    env: { PATH: `${directory.path}:${Deno.env.get("PATH")}` },
  });
}

Deno.test(
  "the commands of docs/tls.md create a certificate for all its names, signed by the authority",
  {
    ignore: lacks("openssl"),
  },
  async () => {
    using directory = withTemporaryDirectory();
    const { path } = directory;
    const script = readCodeBlocks(readDocument("docs/tls.md"), "sh").join("");
    await runScript(script, { cwd: path, programs: {} });
    const [authority, server] = ["ca.pem", "lab.pem"].map((name) =>
      new X509Certificate(Deno.readFileSync(`${path}/${name}`))
    );
    assert.ok(authority && server);
    assert.equal(authority.ca, true);
    assert.ok(server.checkIssued(authority));
    assert.ok(server.verify(authority.publicKey));
    assert.ok(server.checkPrivateKey(createPrivateKey(Deno.readTextFileSync(`${path}/lab.key`))));
    for (const name of ["lab", "lab.example.org"]) assert.equal(server.checkHost(name), name);
    assert.equal(server.checkHost("other"), undefined);
    assert.equal(server.checkIP("192.0.2.7"), "192.0.2.7");
  },
);

/** Replaces `sudo`: installs files below a directory, and does not call systemd. */
const SUDO = `
command=$1
shift
case $command in
  install|sed)
    for word; do
      shift
      case $word in
        /etc/*|/usr/*) word=$INSTALL_ROOT$word; mkdir -p "$(dirname "$word")" ;;
      esac
      set -- "$@" "$word"
    done
    exec "$command" "$@" ;;
  systemctl) echo "systemctl $*" ;;
  *) exit 1 ;;
esac`;

/** The files that a unit and its drop-ins name, with the instance's name for `%i`. */
function listNamedFiles(paths: readonly string[], instance: string): string[] {
  const texts = paths.map((path) => Deno.readTextFileSync(path));
  return texts.flatMap((text) =>
    [...text.matchAll(/^(?:EnvironmentFile=|LoadCredential=[\w-]+:|ExecStart=)(\S+)/gm)]
      .map(([, path = ""]) => path.replaceAll("%i", instance))
  );
}

Deno.test("the commands of docs/systemd.md install all files that the units name", async () => {
  using directory = withTemporaryDirectory();
  const root = `${directory.path}/root`;
  // The binary need not be compiled for the tests.
  const cwd = `${directory.path}/clone`;
  Deno.mkdirSync(cwd);
  Deno.symlinkSync(`${ROOT}/deploy`, `${cwd}/deploy`);
  Deno.writeTextFileSync(`${cwd}/kraken-logger`, "program");
  const blocks = ["Install and start", "Several loggers on one host"].flatMap((heading) =>
    readCodeBlocks(readSection("docs/systemd.md", heading), "sh")
  );
  let printed = "";
  for (const block of blocks) {
    const programs = { sudo: `INSTALL_ROOT='${root}'\n${SUDO}`, journalctl: "exit 0" };
    printed += await runScript(block, { cwd, programs, input: "secret" });
  }
  assert.match(printed, /^systemctl enable --now kraken-logger$/m);
  assert.match(printed, /^systemctl enable --now kraken-logger@lab1$/m);
  const folder = `${root}/etc/systemd/system`;
  for (const [unit, instance] of [["kraken-logger", ""], ["kraken-logger@", "lab1"]]) {
    const dropIn = `${folder}/${unit}${instance}.service.d/mqtt-password.conf`;
    const named = listNamedFiles([`${folder}/${unit}.service`, dropIn], instance ?? "");
    assert.equal(named.length, 4);
    for (const path of named) {
      const { mode } = Deno.statSync(`${root}${path}`);
      assert.equal((mode ?? 0) & 0o777, dirname(path) === "/usr/local/bin" ? 0o755 : 0o600, path);
    }
  }
  const configured = readDocument("docs/systemd.md").matchAll(/\/etc\/kraken-logger\/[\w.-]+/g);
  for (const [path] of configured) assert.ok(Deno.statSync(`${root}${path}`).isFile, path);
  const password = Deno.readTextFileSync(`${root}/etc/kraken-logger/lab1.database-password`);
  assert.equal(password, "secret");
  assert.match(
    Deno.readTextFileSync(`${root}/etc/kraken-logger/lab1.env`),
    /^MQTT_CLIENT_ID=kraken-logger-lab1$/m,
  );
});

Deno.test("the commands of docs/container.md create every secret that the Compose files name", async () => {
  using directory = withTemporaryDirectory();
  const { path } = directory;
  Deno.mkdirSync(`${path}/deploy/compose`, { recursive: true });
  const headings = ["Broker, database and logger with Docker Compose", "Prometheus and Grafana"];
  const script = headings.flatMap((heading) =>
    readCodeBlocks(readSection("docs/container.md", heading), "sh")
  ).join("");
  const printed = await runScript(script, {
    cwd: path,
    programs: { docker: 'echo "$(pwd -P) docker $*"' },
  });
  assert.match(printed, /\/deploy\/compose docker compose up --detach --build$/m);
  const secrets = ["docker-compose.yml", "monitoring.yml"].flatMap((file) =>
    [...readDocument(`deploy/compose/${file}`).matchAll(/file: \.\/(secrets\/\w+)/g)]
      .map(([, name = ""]) => name)
  );
  assert.ok(secrets.length >= 6);
  for (const name of secrets) {
    const { mode, size } = Deno.statSync(`${path}/deploy/compose/${name}`);
    // Readable for the users of the containers, in a directory that no other user may enter.
    assert.equal((mode ?? 0) & 0o777, 0o644, name);
    assert.equal(size, 33, name);
  }
  const { mode } = Deno.statSync(`${path}/deploy/compose/secrets`);
  assert.equal((mode ?? 0) & 0o777, 0o700);
});
