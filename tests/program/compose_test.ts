/**
 * The files of `deploy/compose`, used by a real Mosquitto, a real PostgreSQL and the logger.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import { parseConfig } from "../../lib/config/config.ts";
import { type LoggerEnv, runLogger, startLogger } from "../support/logger_process.ts";
import { readDocument } from "../support/documents.ts";
import { waitUntil } from "../support/poll.ts";
import { findFreePort, LOOPBACK } from "../support/ports.ts";
import { startPostgres } from "../support/postgres.ts";
import { TestDatabase } from "../support/postgres_database.ts";
import { runSuccessfully, TestProcess } from "../support/process.ts";
import { lacks } from "../support/programs.ts";
import { publishPayloads, publishReadings } from "../support/publisher.ts";
import { expectStored, makeReadings } from "../support/readings.ts";
import {
  findServiceUser,
  makeServiceDirectory,
  type ServiceUser,
  writePrivateFile,
} from "../support/service_user.ts";
import { runSql, type SqlTarget } from "../support/sql.ts";
import { subscribe } from "../support/subscriber.ts";
import { SENSORS } from "../support/harness.ts";

const COMPOSE = fileURLToPath(new URL("../../deploy/compose", import.meta.url));
const PAGE = readDocument("docs/container.md");
const CLIENT_ID = "kraken-logger";
const PASSWORDS = {
  database_logger_password: "dl+/Zm9v=",
  mqtt_logger_password: "ml+/Zm9v=",
  mqtt_publisher_password: "mp+/Zm9v=",
};

/** A directory in place of the file systems of the containers. The caller disposes it. */
class Place implements Disposable {
  readonly user: ServiceUser | null = findServiceUser(["mosquitto"]);
  readonly path: string = makeServiceDirectory(this.user);

  constructor() {
    for (const [name, password] of Object.entries(PASSWORDS)) this.write(name, `${password}\n`);
  }

  write(name: string, content: string): string {
    const path = `${this.path}/${name}`;
    writePrivateFile(this.user, path, content);
    return path;
  }

  /** Copies a file of `deploy/compose`, with the paths of the container replaced. */
  copy(path: string, replacements: Readonly<Record<string, string>>): string {
    let text = Deno.readTextFileSync(`${COMPOSE}/${path}`);
    for (const [from, to] of Object.entries(replacements)) {
      assert.ok(text.includes(from), `${path} does not contain '${from}'`);
      text = text.replaceAll(from, to);
    }
    return this.write(path.slice(path.lastIndexOf("/") + 1), text);
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

/** Starts Mosquitto as the container does. */
function startBroker(place: Place, port: number): TestProcess {
  const directory = `${place.path}/`;
  place.copy("mosquitto/acl", {});
  const config = place.copy("mosquitto/mosquitto.conf", {
    "listener 1883": `listener ${port} ${LOOPBACK}\nlog_type all`,
    "/tmp/passwords": `${directory}passwords`,
    "/tmp/acl": `${directory}acl.private`,
    "/mosquitto/data/": directory,
  });
  const script = place.copy("mosquitto/start.sh", {
    "/run/secrets/": directory,
    "/tmp/passwords": `${directory}passwords`,
    "/tmp/acl": `${directory}acl.private`,
    "/mosquitto/config/mosquitto.conf": config,
    "/mosquitto/config/acl": `${directory}acl`,
  });
  return TestProcess.start("/bin/sh", {
    args: [script],
    cwd: place.path,
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin" },
    clearEnv: true,
    ...place.user,
  });
}

/** Runs one of the database's scripts as the container does. */
async function runScript(
  place: Place,
  name: string,
  { host, port, ...target }: SqlTarget,
): Promise<void> {
  const script = place.copy(`database/${name}`, { "/run/secrets/": `${place.path}/` });
  await runSuccessfully("psql", {
    args: ["--no-psqlrc", "--quiet", `--file=${script}`],
    env: {
      PGHOST: host,
      PGPORT: String(port),
      PGUSER: target.user,
      PGPASSWORD: target.password,
      PGDATABASE: target.database,
    },
  });
}

Deno.test("with the files of deploy/compose, broker, database and logger work together", {
  ignore: lacks("mosquitto", "psql"),
}, async () => {
  using place = new Place();
  const port = findFreePort();
  await using broker = startBroker(place, port);
  await broker.waitForLine(/mosquitto version \S+ running/);
  await using postgres = await startPostgres();
  await postgres.query("CREATE DATABASE sensors");
  const owner = postgres.superuser("sensors");
  await runScript(place, "create_role.sql", owner);

  const services: LoggerEnv = {
    DATABASE_HOST: `${postgres.host}:${postgres.port}`,
    DATABASE_USER: "kraken",
    DATABASE_PASSWORD_FILE: `${place.path}/database_logger_password`,
    MQTT_HOST: `${LOOPBACK}:${port}`,
    MQTT_CLIENT_ID: CLIENT_ID,
    MQTT_CLIENT_USER: "kraken",
    MQTT_CLIENT_PASSWORD_FILE: `${place.path}/mqtt_logger_password`,
  };
  const ownerPassword = place.write("database_owner_password", `${owner.password}\n`);
  const init = await runLogger(["init", "--grant", "kraken"], {
    ...services,
    DATABASE_USER: owner.user,
    DATABASE_PASSWORD_FILE: ownerPassword,
  });
  assert.equal(init.code, 0, init.stdout + init.stderr);
  const database = new TestDatabase(owner);
  await database.registerSensors(SENSORS);
  const check = await runLogger(["check"], services);
  assert.equal(check.code, 0, check.stdout + check.stderr);

  const role = { ...owner, user: "kraken", password: PASSWORDS.database_logger_password };
  for (const sql of ["CREATE TEMPORARY TABLE mine ()", "UPDATE sensors SET enabled = true"]) {
    await assert.rejects(runSql(role, sql), { code: "42501" }, sql);
  }

  const address = { host: LOOPBACK, port, receiveMaximum: 1000 };
  const publisher = { username: "publisher", password: PASSWORDS.mqtt_publisher_password };
  await assert.rejects(publishPayloads(address, ["x"]), /refused/);
  await assert.rejects(publishPayloads(address, ["x"], { ...publisher, password: "" }), /refused/);
  await using logger = startLogger(services);
  await broker.waitForLine(new RegExp(`^\\d+: ${CLIENT_ID} 2 sensors/#$`));
  const readings = makeReadings({ count: 500 });
  await publishReadings(address, readings, publisher);
  await waitUntil(async () => await database.countReadings() === readings.length);
  await expectStored(database, readings);
  assert.equal(await logger.stop(), 0);
  broker.kill("SIGTERM");
  assert.equal((await broker.finished()).code, 0);
  assert.ok(!broker.lines.some((line) => /warning/i.test(line)), broker.tail());
});

Deno.test("the role of Grafana can be created in a used database, and created again", {
  ignore: lacks("psql"),
}, async () => {
  using place = new Place();
  await using postgres = await startPostgres();
  await postgres.query("CREATE DATABASE sensors");
  const owner = postgres.superuser("sensors");
  await runSql(owner, "CREATE TABLE sensors (id integer)");
  for (const password of ["dg+/Zm9v=", "it's another one"]) {
    place.write("database_grafana_password", `${password}\n`);
    await runScript(place, "create_grafana_role.sql", owner);
    const role = { ...owner, user: "grafana", password };
    assert.deepEqual(await runSql(role, "SELECT id FROM sensors"), []);
    await assert.rejects(runSql(role, "INSERT INTO sensors VALUES (1)"), { code: "42501" });
    await assert.rejects(runSql({ ...role, password: "dg" }, "SELECT 1"), { code: "28P01" });
    await runSql(owner, "CREATE TABLE IF NOT EXISTS sensor_data (value float8)");
    assert.deepEqual(await runSql(role, "SELECT value FROM sensor_data"), []);
  }
  // In the container, the script has the path that docs/container.md names.
  const [, path = ""] = /psql [^`]*--file=(\S+grafana\S+)/.exec(PAGE) ?? [];
  const { database } = parse(Deno.readTextFileSync(`${COMPOSE}/monitoring.yml`)).services;
  assert.ok(database.volumes.includes(`./database/create_grafana_role.sql:${path}:ro`), path);
});

Deno.test(
  "the documented command ends the session of the second logger, and the access list allows it",
  {
    ignore: lacks("mosquitto", "mosquitto_sub"),
  },
  async () => {
    using place = new Place();
    const port = findFreePort();
    await using broker = startBroker(place, port);
    await broker.waitForLine(/mosquitto version \S+ running/);
    const address = { host: LOOPBACK, port };
    const publisher = { username: "publisher", password: PASSWORDS.mqtt_publisher_password };
    const [, clientId = ""] = /MQTT_CLIENT_ID: (\S+)/.exec(
      Deno.readTextFileSync(`${COMPOSE}/replicas.yml`),
    ) ?? [];
    const session = {
      clientId,
      filter: "sensors/#",
      username: "kraken",
      password: PASSWORDS.mqtt_logger_password,
    };
    {
      await using _subscriber = await subscribe(address, session);
    }
    await publishPayloads(address, ["kept for the session"], publisher);
    const [, command = ""] = /exec mosquitto sh -c \\\n +'([^']*)'/.exec(PAGE) ?? [];
    assert.ok(command.includes(clientId), command);
    await runSuccessfully("/bin/sh", {
      args: [
        "-c",
        command.replace("/run/secrets/", `${place.path}/`)
          .replace("mosquitto_sub", `mosquitto_sub -h ${LOOPBACK} -p ${port}`),
      ],
    });
    await using again = await subscribe(address, session);
    await publishPayloads(address, ["published later"], publisher);
    await again.waitForCount(1);
    assert.deepEqual(again.messages.map(({ payload }) => payload), ["published later"]);
  },
);

/** The environments of the services of some Compose files, merged in their order. */
function readEnvironments(files: readonly string[]): Map<string, Record<string, string>> {
  const environments = new Map<string, Record<string, string>>();
  for (const file of files) {
    const { services } = parse(Deno.readTextFileSync(`${COMPOSE}/${file}`), { merge: true });
    for (const [name, { environment = {} }] of Object.entries<Record<string, object>>(services)) {
      environments.set(name, { ...environments.get(name), ...environment });
    }
  }
  return environments;
}

Deno.test("Prometheus reads the metrics of every logger of the Compose files", () => {
  const { scrape_configs: [{ dns_sd_configs: [{ names, port }] }] } = parse(
    Deno.readTextFileSync(`${COMPOSE}/../prometheus/prometheus.yml`),
  );
  const services = readEnvironments(["docker-compose.yml", "monitoring.yml", "replicas.yml"]);
  const loggers = [...services].filter(([, { MQTT_HOST }]) => MQTT_HOST !== undefined);
  assert.deepEqual(loggers.map(([name]) => name).sort(), [...names].sort());
  assert.equal(loggers.length, 2);
  for (const [name, environment] of loggers) {
    const { http } = parseConfig(environment, () => "secret");
    assert.deepEqual(http, { host: "0.0.0.0", port }, name);
  }
});
