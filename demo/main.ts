/**
 * The demo: broker, database, a simulated LabKraken node and the real logger in one process,
 * connected over TCP. Every second it shows what the database has stored.
 */

import { sleep } from "../lib/common/backoff.ts";
import { describeError } from "../lib/common/error_text.ts";
import { parseConfig } from "../lib/config/config.ts";
import { describeEndpoint, type Endpoint } from "../lib/common/endpoint.ts";
import { readTextFile } from "../lib/config/environment.ts";
import { configureLog } from "../lib/common/log.ts";
import type { MqttConfig } from "../lib/config/mqtt.ts";
import { formatCount } from "../lib/common/text.ts";
import { Logger } from "../lib/logger.ts";
import { HELP, type Options, parseCommandLine, UsageError } from "./command_line.ts";
import { countRows, formatTable, type View } from "./layout.ts";
import { createSession, NoMqttError, removeSession } from "./mqtt_client.ts";
import { SimulatedNode } from "./node.ts";
import { createScreen, type Screen, standardOutput } from "./screen.ts";
import { createSensors, type Sensor, topicOf } from "./sensors.ts";
import { type EmbeddedDatabase, startBroker, startDatabase } from "./services.ts";

const SUCCESS = 0;
const FAILURE = 1;

const REFRESH_MS = 1_000;

/** How long the last readings may take from the broker into the table. */
const ARRIVAL_TIMEOUT_MS = 10_000;

/** Width of the table where there is no terminal. */
const DEFAULT_COLUMNS = 80;

/** The broker of the user does not work; the message names the reason, `hint` the remedy. */
class BrokerError extends Error {
  override readonly name = "BrokerError";
  readonly hint: string;

  constructor(
    message: string,
    { hint, cause }: { readonly hint: string; readonly cause: unknown },
  ) {
    super(message, { cause });
    this.hint = hint;
  }
}

interface Context {
  readonly screen: Screen;
  /** Aborted when the demo must end. */
  readonly stop: AbortController;
}

/** Starts all parts, runs until the end is requested, stops all parts, returns the exit status. */
async function run({ broker, seconds }: Options, { screen, stop }: Context): Promise<number> {
  screen.print([`Starting ${broker === undefined ? "broker, " : ""}database, node and logger …`]);
  const sensors = createSensors();
  await using embedded = broker === undefined ? await startBroker() : undefined;
  const endpoint = broker ?? embedded?.endpoint;
  if (endpoint === undefined) throw new TypeError("Starting the demo: no broker");
  // The broker of a user may have other sensors, which the demo must leave alone.
  const topics = embedded === undefined ? sensors.map(topicOf) : ["sensors/#"];
  const environment = loggerEnvironment(endpoint, topics);
  // Before the database, which takes seconds to start: a wrong broker is reported at once.
  const { mqtt } = parseConfig(environment, readTextFile);
  await using _session = await openSession(mqtt, screen);
  const node = await connectNode(mqtt, { sensors, oneAtATime: embedded !== undefined });
  await using database = await startDatabase(sensors);
  if (stop.signal.aborted) {
    await node.stop();
    screen.print(["Ended before the first reading."]);
    return SUCCESS;
  }
  const config = parseConfig({ ...environment, ...databaseEnvironment(database) }, readTextFile);
  screen.introduce(
    introduction({ endpoint, database, page: config.http, isEmbedded: embedded !== undefined }),
  );

  configureLog(config.log, { write: (line) => screen.log(line) });
  const logger = new Logger(config);
  const { failed } = logger.start();
  node.start();
  const startMs = performance.now();
  const readView = async (): Promise<View> => ({
    elapsedSeconds: (performance.now() - startMs) / 1000,
    sensors: await readSensors(database, sensors),
    published: node.published,
    statistics: logger.statistics,
  });
  const timer = seconds === undefined ? undefined : setTimeout(() => stop.abort(), seconds * 1e3);
  await Promise.race([watch(readView, { screen, stop }), failed]);
  clearTimeout(timer);

  screen.close();
  screen.print(["Ending: waiting until the database has all published readings …"]);
  const dropped = await node.stop();
  await waitForRows(database, node.published);
  const unfinished = await logger.stop();
  const view = await readView();
  const table = formatTable(view, screen.columns ?? DEFAULT_COLUMNS);
  screen.print(["", ...table, "", summary(view)]);
  if (dropped > 0) {
    screen.print([`${formatCount(dropped, "more reading")} did not reach the broker.`]);
  }
  return unfinished === 0 && countRows(view) >= view.published ? SUCCESS : FAILURE;
}

/** Returns the environment that configures the logger; everything else is as in real use. */
function loggerEnvironment(endpoint: Endpoint, topics: readonly string[]): Record<string, string> {
  const env: Record<string, string> = {
    // Until the database has started, nothing connects to it.
    DATABASE_HOST: "127.0.0.1",
    DATABASE_USER: "postgres",
    DATABASE_PASSWORD: "not needed",
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

function databaseEnvironment({ endpoint, name, user }: EmbeddedDatabase): Record<string, string> {
  return { DATABASE_HOST: address(endpoint), DATABASE_NAME: name, DATABASE_USER: user };
}

/**
 * Creates the session of the logger at the broker. Disposing removes it, so that nothing is left at
 * the broker of a user.
 *
 * @throws {BrokerError} if the broker cannot be reached or refuses.
 */
async function openSession(mqtt: MqttConfig, screen: Screen): Promise<AsyncDisposable> {
  await useBroker(mqtt, () => createSession(mqtt));
  return {
    async [Symbol.asyncDispose](): Promise<void> {
      try {
        await removeSession(mqtt);
      } catch (error) {
        screen.print([
          `The session '${mqtt.clientId}' stays at the broker: ${describeError(error)}.`,
        ]);
      }
    },
  };
}

/** @throws {BrokerError} if the broker cannot be reached or refuses. */
function connectNode(
  mqtt: MqttConfig,
  options: { readonly sensors: readonly Sensor[]; readonly oneAtATime: boolean },
): Promise<SimulatedNode> {
  return useBroker(mqtt, () => SimulatedNode.connect(mqtt, options));
}

async function useBroker<T>(mqtt: MqttConfig, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    const where = mqtt.endpoints.map(describeEndpoint).join();
    const message = `Using the MQTT broker ${where}: ${describeError(error)}`;
    throw new BrokerError(message, { hint: remedyFor(error), cause: error });
  }
}

/** Return codes of CONNACK: bad user name or password, not authorized (MQTT 3.1.1, 3.2.2.3). */
const LOGIN_REFUSED: readonly unknown[] = [4, 5];

function remedyFor(error: unknown): string {
  if (error instanceof NoMqttError) {
    return "Give the port for MQTT without TLS, usually 1883.";
  }
  if (error instanceof Error && "code" in error && LOGIN_REFUSED.includes(error.code)) {
    return "Set MQTT_CLIENT_USER and MQTT_CLIENT_PASSWORD to a login of the broker.";
  }
  if (error instanceof Error && error.message.startsWith("Subscribe error")) {
    return "The broker must allow this user to publish and to subscribe below sensors/.";
  }
  return "Check host and port. Without --broker, the demo starts a broker.";
}

/** Lists the addresses of the running parts, with commands to access them. */
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

/** Shows the view at once and then every second, until the end is requested. */
async function watch(readView: () => Promise<View>, { screen, stop }: Context): Promise<void> {
  while (!stop.signal.aborted) {
    screen.show(await readView());
    await sleep(REFRESH_MS, stop.signal);
  }
}

/** Reads the state of all sensors, including those that the user has registered. */
async function readSensors(
  database: EmbeddedDatabase,
  sensors: readonly Sensor[],
): Promise<View["sensors"]> {
  return (await database.readSensors()).map(({ uuid, sid, label, value, ...rest }) => {
    const sensor = sensors.find((candidate) => candidate.uuid === uuid && candidate.sid === sid);
    return {
      ...rest,
      label: label ?? `${uuid.slice(0, 8)}… sid ${sid}`,
      value: value === null ? null : sensor?.format(value) ?? String(Number(value.toPrecision(8))),
      unit: sensor?.unit ?? "",
    };
  });
}

/** Waits until the database has as many rows as were published, or for the time limit. */
async function waitForRows(database: EmbeddedDatabase, published: number): Promise<void> {
  const deadline = AbortSignal.timeout(ARRIVAL_TIMEOUT_MS);
  while (await database.countRows() < published && !deadline.aborted) await sleep(50, deadline);
}

function summary(view: View): string {
  const { published, statistics } = view;
  const rows = countRows(view);
  const outcome = rows === published
    ? "each is stored exactly once"
    : rows > published
    ? `all are stored, and ${formatCount(rows - published, "row")} from other senders`
    : `${published - rows} missing (${statistics})`;
  return `${formatCount(published, "reading")} published, ${
    formatCount(rows, "row")
  } in the database: ${outcome}.`;
}

/** Returns a port that no program uses at this moment. */
function findFreePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

function address(endpoint: Endpoint): string {
  return describeEndpoint(endpoint).slice(1, -1);
}

/** On Windows, only SIGINT reaches a program. */
const SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT"]
  : ["SIGINT", "SIGTERM", "SIGHUP"];

/** Ctrl-C reaches the program up to three times: `npx` and `deno task` forward the signal. */
const SAME_SIGNAL_MS = 500;

/** The first signal requests a clean end, the second one ends the program at once. */
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
  const screen = createScreen(standardOutput(() => stop.abort()));
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
    const hint = error instanceof BrokerError ? error.hint : "See 'deno task demo --help'.";
    Deno.stderr.writeSync(new TextEncoder().encode(`demo: ${error.message}. ${hint}\n`));
    return FAILURE;
  } finally {
    screen.close();
  }
}

if (import.meta.main) Deno.exitCode = await main();
