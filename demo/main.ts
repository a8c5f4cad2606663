/**
 * The Kraken logger at work: broker, database, a simulated LabKraken node and the real logger in
 * one process, connected over TCP, with a look at the table every second.
 */

import { sleep } from "../lib/common/backoff.ts";
import { describeError } from "../lib/common/error_text.ts";
import { type Config, parseConfig } from "../lib/config/config.ts";
import { describeEndpoint, type Endpoint } from "../lib/common/endpoint.ts";
import { readTextFile } from "../lib/config/environment.ts";
import { configureLog } from "../lib/common/log.ts";
import { Logger } from "../lib/logger.ts";
import { HELP, type Options, parseCommandLine, UsageError } from "./command_line.ts";
import { createSession, forgetSession } from "./mqtt_client.ts";
import { SimulatedNode } from "./node.ts";
import { countRows, createScreen, formatTable, type Screen, type View } from "./screen.ts";
import { createSensors, type Sensor, topicOf } from "./sensors.ts";
import { type EmbeddedDatabase, startBroker, startDatabase } from "./services.ts";

const SUCCESS = 0;
const FAILURE = 1;

const REFRESH_MS = 1_000;

/** Time that the last readings get from the broker into the table. */
const ARRIVAL_TIMEOUT_MS = 10_000;

/** The user's broker is of no use; the message says why. */
class BrokerError extends Error {
  override readonly name = "BrokerError";
}

interface Context {
  readonly screen: Screen;
  /** Aborted when the demonstration is to end. */
  readonly stop: AbortController;
}

/** Starts everything, lets it run until it is to end, ends it, and returns the exit status. */
async function run({ broker, seconds }: Options, { screen, stop }: Context): Promise<number> {
  screen.print([`Starting ${broker === undefined ? "broker, " : ""}database, node and logger …`]);
  const sensors = createSensors();
  await using embedded = broker === undefined ? await startBroker() : undefined;
  const endpoint = broker ?? embedded?.endpoint;
  if (endpoint === undefined) throw new TypeError("no broker");
  await using database = await startDatabase(sensors);
  // At a broker of the user's there may be sensors that are none of our business.
  const topics = embedded === undefined ? sensors.map(topicOf) : ["sensors/#"];
  const config = parseConfig(loggerEnvironment({ endpoint, database, topics }), readTextFile);
  const node = await connectNode(config, { sensors, oneAtATime: embedded !== undefined });
  screen.introduce(
    introduction({ endpoint, database, page: config.http, isEmbedded: embedded !== undefined }),
  );

  configureLog(config.log, { write: (line) => screen.log(line) });
  const logger = new Logger(config);
  const { failed } = logger.start();
  node.start();
  const startMs = performance.now();
  const look = async (): Promise<View> => ({
    elapsedSeconds: (performance.now() - startMs) / 1000,
    sensors: await readSensors(database, sensors),
    published: node.published,
    statistics: logger.statistics,
  });
  const timer = seconds === undefined ? undefined : setTimeout(() => stop.abort(), seconds * 1e3);
  await Promise.race([watch(look, { screen, stop }), failed]);
  clearTimeout(timer);

  screen.close();
  screen.print(["Ending: no more readings; waiting until all are stored …"]);
  const givenUp = await node.stop();
  await arrival(database, node.published);
  const unfinished = await logger.stop();
  const view = await look();
  screen.print(["", ...formatTable(view), "", summary(view)]);
  if (givenUp > 0) screen.print([`${givenUp} more readings did not reach the broker.`]);
  if (embedded === undefined) await leave(config, screen);
  return unfinished === 0 && countRows(view) >= view.published ? SUCCESS : FAILURE;
}

interface LoggerTargets {
  readonly endpoint: Endpoint;
  readonly database: EmbeddedDatabase;
  readonly topics: readonly string[];
}

/** The logger is configured as anywhere else; only that its environment is made here. */
function loggerEnvironment({ endpoint, database, topics }: LoggerTargets): Record<string, string> {
  const env: Record<string, string> = {
    DATABASE_HOST: address(database.endpoint),
    DATABASE_NAME: database.name,
    DATABASE_USER: database.user,
    DATABASE_PASSWORD: "not asked for",
    DATABASE_SSLMODE: "disable",
    MQTT_HOST: address(endpoint),
    MQTT_CLIENT_ID: `kraken-demo-${crypto.randomUUID().slice(0, 6)}`,
    MQTT_TOPIC: topics.join(","),
    HTTP_PORT: String(findFreePort()),
  };
  for (const name of ["MQTT_CLIENT_USER", "MQTT_CLIENT_PASSWORD"]) {
    const value = Deno.env.get(name);
    if (value) env[name] = value;
  }
  return env;
}

/** @throws {BrokerError} when the broker cannot be reached or refuses. */
async function connectNode(
  { mqtt }: Config,
  options: { readonly sensors: readonly Sensor[]; readonly oneAtATime: boolean },
): Promise<SimulatedNode> {
  try {
    await createSession(mqtt);
    return await SimulatedNode.connect(mqtt, options);
  } catch (error) {
    const where = mqtt.endpoints.map(describeEndpoint).join();
    const message = `The MQTT broker at ${where} cannot be used: ${describeError(error)}`;
    throw new BrokerError(message, { cause: error });
  }
}

/** What is running where, and how to look at it from outside. */
function introduction(
  { endpoint, database, page, isEmbedded }: {
    readonly page: Endpoint | undefined;
    readonly endpoint: Endpoint;
    readonly database: EmbeddedDatabase;
    readonly isEmbedded: boolean;
  },
): string[] {
  const broker = isEmbedded ? "embedded, MQTT 3.1.1" : "yours";
  const { host, port } = database.endpoint;
  return [
    "A simulated LabKraken node publishes, the Kraken logger stores. Ctrl-C ends it.",
    ...(page === undefined ? [] : [`Status page  http://${address(page)}/`]),
    `MQTT broker  ${address(endpoint)}  (${broker})`,
    `             mosquitto_sub -h ${endpoint.host} -p ${endpoint.port} -v -t "sensors/#"`,
    `Database     ${address(database.endpoint)}  (embedded, ${database.version}, in memory)`,
    `             psql -h ${host} -p ${port} -U ${database.user} ${database.name}`,
  ];
}

/** Shows the table every second until it is to end. */
async function watch(look: () => Promise<View>, { screen, stop }: Context): Promise<void> {
  while (!stop.signal.aborted) {
    await sleep(REFRESH_MS, stop.signal);
    if (!stop.signal.aborted) screen.show(await look());
  }
}

/** What the database has of each sensor, those included that somebody else has registered. */
async function readSensors(
  database: EmbeddedDatabase,
  sensors: readonly Sensor[],
): Promise<View["sensors"]> {
  return (await database.readSensors()).map(({ uuid, sid, label, value, ...rest }) => {
    const sensor = sensors.find((candidate) => candidate.uuid === uuid && candidate.sid === sid);
    return {
      ...rest,
      label: label ?? `${uuid.slice(0, 8)}… sid ${sid}`,
      value: value === null ? null : sensor?.format(value) ?? String(value),
      unit: sensor?.unit ?? "",
    };
  });
}

/** Waits until as many rows as were published are there, but not for ever. */
async function arrival(database: EmbeddedDatabase, published: number): Promise<void> {
  const deadline = AbortSignal.timeout(ARRIVAL_TIMEOUT_MS);
  while (await database.countRows() < published && !deadline.aborted) await sleep(50, deadline);
}

function summary(view: View): string {
  const { published, statistics } = view;
  const rows = countRows(view);
  const outcome = rows === published
    ? "each is there exactly once"
    : rows > published
    ? `all are there, and ${rows - published} that somebody else has sent`
    : `${published - rows} are missing (${statistics})`;
  return `${published} readings published, ${rows} rows in the database: ${outcome}.`;
}

/** Leaves nothing behind at the user's broker. */
async function leave({ mqtt }: Config, screen: Screen): Promise<void> {
  try {
    await forgetSession(mqtt);
  } catch (error) {
    screen.print([
      `The session '${mqtt.clientId}' is left with the broker: ${describeError(error)}.`,
    ]);
  }
}

/** A port that nobody listens at, at this moment. */
function findFreePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

function address(endpoint: Endpoint): string {
  return describeEndpoint(endpoint).slice(1, -1);
}

/** Windows has no others that reach a program. */
const SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT"]
  : ["SIGINT", "SIGTERM", "SIGHUP"];

/** Ctrl-C reaches the program up to three times: `deno task` passes on what both have received. */
const SAME_SIGNAL_MS = 500;

/** The first signal asks for a clean end, the second ends at once. */
function handleSignals({ screen, stop }: Context): Disposable {
  let firstMs: number | undefined;
  const onSignal = (): void => {
    const isEnding = stop.signal.aborted && firstMs === undefined;
    firstMs ??= performance.now();
    if (isEnding || performance.now() - firstMs > SAME_SIGNAL_MS) {
      screen.close();
      Deno.exit(FAILURE);
    }
    stop.abort();
  };
  for (const signal of SIGNALS) Deno.addSignalListener(signal, onSignal);
  return {
    [Symbol.dispose](): void {
      for (const signal of SIGNALS) Deno.removeSignalListener(signal, onSignal);
    },
  };
}

async function main(): Promise<number> {
  const stop = new AbortController();
  const screen = createScreen(() => stop.abort());
  try {
    const options = parseCommandLine(Deno.args);
    if (options.help) {
      screen.print(HELP.trimEnd().split("\n"));
      return SUCCESS;
    }
    using _signals = handleSignals({ screen, stop });
    return await run(options, { screen, stop });
  } catch (error) {
    if (!(error instanceof UsageError || error instanceof BrokerError)) throw error;
    const hint = error instanceof UsageError ? " See 'deno task demo --help'." : "";
    Deno.stderr.writeSync(new TextEncoder().encode(`demo: ${error.message}.${hint}\n`));
    return FAILURE;
  } finally {
    screen.close();
  }
}

if (import.meta.main) Deno.exitCode = await main();
