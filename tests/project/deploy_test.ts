/**
 * Files shipped with the program: the systemd units and the license. The settings and files that the
 * units name must be those of the program.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { parse as parseEnv } from "dotenv";
import metadata from "../../deno.json" with { type: "json" };
import { type Config, parseConfig } from "../../lib/config/config.ts";
import { runProgram } from "../support/process.ts";
import { isFile, lacks } from "../support/programs.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
const UNIT = "deploy/systemd/kraken-logger.service";
const INSTANCE_UNIT = "deploy/systemd/kraken-logger@.service";

function read(path: string): string {
  return Deno.readTextFileSync(`${ROOT}/${path}`);
}

/** The settings of a unit or a drop-in, by name; a setting may occur more than once. */
function readUnit(path: string): Map<string, string[]> {
  const settings = new Map<string, string[]>();
  for (const [, name = "", value = ""] of read(path).matchAll(/^(\w+)=(.*)$/gm)) {
    settings.set(name, [...settings.get(name) ?? [], value]);
  }
  return settings;
}

Deno.test("the unit's environment is a complete configuration, with and without a broker's password", () => {
  const file = read("deploy/systemd/kraken-logger.env");
  const parseUnits = (settings: string, paths: readonly string[]): Config => {
    const units = paths.map(readUnit);
    const environment = units.flatMap((unit) => unit.get("Environment") ?? []);
    const text = [settings, ...environment].join("\n").replaceAll("%d", "/credentials");
    const loaded = units.flatMap((unit) => unit.get("LoadCredential") ?? [])
      .map((credential) => credential.split(":")[0]);
    return parseConfig({ ...parseEnv(text), STATE_DIRECTORY: "/var/lib/kraken-logger" }, (path) => {
      assert.ok(loaded.includes(path.replace("/credentials/", "")), path);
      return "secret\n";
    });
  };
  const { mqtt, database, warnings } = parseUnits(file, [UNIT]);
  assert.equal(database.password, "secret");
  assert.deepEqual([mqtt.user, mqtt.password], [undefined, undefined]);
  assert.ok(mqtt.clientId, "without a client id, messages are lost");
  assert.deepEqual(warnings, []);
  const withUser = file.replace("#MQTT_CLIENT_USER", "MQTT_CLIENT_USER");
  const protectedBroker = parseUnits(withUser, [UNIT, "deploy/systemd/mqtt-password.conf"]).mqtt;
  assert.deepEqual([protectedBroker.user, protectedBroker.password], ["kraken", "secret"]);
});

Deno.test("the unit waits for the end of the logger, and does not restart it after a configuration error", () => {
  const unit = readUnit(UNIT);
  const only = (name: string): string => (unit.get(name) ?? []).join(" ");
  assert.equal(only("Restart"), "on-failure");
  assert.equal(only("RestartPreventExitStatus"), "78");
  // 10 s to store in-flight messages, 5 s to acknowledge them and 5 s to close the connection.
  assert.ok(Number(only("TimeoutStopSec")) > 20);
  assert.equal(unit.has("MemoryDenyWriteExecute"), false, "the JavaScript engine would not start");
});

for (const unit of [UNIT, INSTANCE_UNIT]) {
  Deno.test(`systemd accepts ${unit}, and rates its protection as good`, {
    ignore: lacks("systemd-analyze"),
  }, async () => {
    const folder = Deno.makeTempDirSync({ prefix: "kraken-test-" });
    try {
      const path = `${folder}/${unit.slice(unit.lastIndexOf("/") + 1).replace("@", "@lab")}`;
      // The program need not be installed on the machine of the tests.
      const text = read(unit).replace("/usr/local/bin/kraken-logger", "/bin/true");
      Deno.writeTextFileSync(path, text);
      const args = ["verify", "--man=no", path];
      const verified = await runProgram("systemd-analyze", { args });
      assert.equal(verified.stdout + verified.stderr, "");
      assert.equal(verified.code, 0);
      // The unit of the threshold is a tenth: 20 is an exposure of 2.0.
      const security = ["security", "--offline=true", "--no-pager", "--threshold=20", path];
      const { code, stdout, stderr } = await runProgram("systemd-analyze", { args: security });
      assert.match(stdout, /Overall exposure level/);
      assert.equal(code, 0, stdout + stderr);
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  });
}

Deno.test("the instance unit is the unit with the instance's files", () => {
  const settings = (path: string): string =>
    read(path).replaceAll(/^#.*\n/gm, "").replace(/^Description=.*$/m, "");
  const plain = settings(UNIT)
    .replaceAll("/etc/kraken-logger/kraken-logger.env", "/etc/kraken-logger/%i.env")
    .replaceAll("/etc/kraken-logger/database-", "/etc/kraken-logger/%i.database-")
    .replaceAll(/^StateDirectory=.*$|(?<=%S\/)kraken-logger$/gm, (text) => `${text}-%i`);
  assert.equal(settings(INSTANCE_UNIT).trim(), plain.trim());
});

Deno.test("the file LICENSE has the declared license", () => {
  assert.ok(isFile(`${ROOT}/LICENSE`));
  assert.match(read("LICENSE"), /GNU GENERAL PUBLIC LICENSE\s+Version 3/);
  assert.equal(metadata.license, "GPL-3.0-or-later");
});
