/**
 * The environment of the soak: real services, a proxy in front of broker and database, the logger,
 * and the load.
 */
import { createFakeClock, type FakeClock, hasFakeClock } from "../support/fake_clock.ts";
import { canMount } from "../faults/small_disk.ts";
import { createSession, startTellingMosquitto, waitForSubscription } from "../support/harness.ts";
import { loggerEnv } from "../support/logger_process.ts";
import type { MosquittoBroker } from "../support/mosquitto.ts";
import { waitUntil } from "../support/poll.ts";
import { type PostgresServer, startPostgres, type TestDatabase } from "../support/postgres.ts";
import { startProxy, type TcpProxy } from "../support/proxy.ts";
import { subscribe } from "../support/subscriber.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import { type Load, LOAD_SENSORS, type LoadOptions, startLoad } from "./load.ts";
import { LoggerKeeper } from "./logger_keeper.ts";
import { mountSpoolDisk, type SpoolDisk } from "./spool_disk.ts";

/** All parts of the environment. */
export interface Stage {
  readonly postgres: PostgresServer;
  readonly database: TestDatabase;
  readonly broker: MosquittoBroker;
  /** The proxies that the logger connects to. */
  readonly databaseLink: TcpProxy;
  readonly brokerLink: TcpProxy;
  readonly logger: LoggerKeeper;
  readonly load: Load;
  /** The disk of the spool; undefined without the permission to mount. */
  readonly spoolDisk: SpoolDisk | undefined;
  /** Undefined if libfaketime is not installed. */
  readonly clock: FakeClock | undefined;
  /** Aborted when the soak is interrupted. */
  readonly signal: AbortSignal;
}

/** The credentials of the logger; the daemons connect without. */
export const BROKER_USER = { username: "logger", password: "right" };

/** All users of the broker. */
export const BROKER_USERS = { [BROKER_USER.username]: BROKER_USER.password };

/** Few connections, so that all of them are quickly in use. */
const MAX_CONNECTIONS = "12";

/** Maximum time until the services work again. */
const HEAL_TIMEOUT_MS = 120_000;

/** Maximum time until the logger subscribes, including its longest delay. */
const SUBSCRIBE_TIMEOUT_MS = 60_000;

/** How {@linkcode openStage} sets the stage. */
export interface StageOptions extends LoadOptions {
  readonly signal: AbortSignal;
}

/** Starts everything; `resources` owns it. */
export async function openStage(
  resources: AsyncDisposableStack,
  { signal, ...options }: StageOptions,
): Promise<Stage> {
  const spoolDisk = canMount() ? resources.use(await mountSpoolDisk()) : undefined;
  const directory = spoolDisk ?? resources.use(withTemporaryDirectory());
  const clock = hasFakeClock() ? resources.use(createFakeClock()) : undefined;
  const postgres = resources.use(
    await startPostgres({ settings: { max_connections: MAX_CONNECTIONS } }),
  );
  const database = await postgres.createDatabase({ name: "soak" });
  await database.registerSensors(LOAD_SENSORS);
  // The broker must queue all messages while the logger is not connected.
  const broker = resources.use(
    await startTellingMosquitto({
      maxInflightMessages: 1000,
      maxQueuedMessages: 0,
      users: BROKER_USERS,
      config: ["allow_anonymous true"],
    }),
  );
  await createSession(broker);
  const databaseLink = resources.use(await startProxy(postgres));
  const brokerLink = resources.use(await startProxy(broker));
  const logger = resources.use(
    new LoggerKeeper(loggerEnv({ database, broker: brokerLink }, {
      DATABASE_HOST: databaseLink.host,
      DATABASE_PORT: String(databaseLink.port),
      MQTT_CLIENT_USER: BROKER_USER.username,
      MQTT_CLIENT_PASSWORD: BROKER_USER.password,
      SPOOL_DIRECTORY: directory.path,
    })),
  );
  logger.start();
  await logger.waitForLine("Connected to MQTT broker");
  const load = resources.use(startLoad(broker, options));
  return {
    ...{ postgres, database, broker, databaseLink, brokerLink, logger, load, spoolDisk, clock },
    signal,
  };
}

/**
 * Ends all faults, and starts services that do not run. After a Ctrl-C, which a terminal also sends
 * to the services, those are all of them.
 *
 * @returns the services that have ended unexpectedly.
 * @throws {Error} when they do not work in time.
 */
export async function heal(stage: Stage): Promise<string[]> {
  const { postgres, database, broker, logger, load, signal } = stage;
  const services = [{ name: "PostgreSQL", service: postgres }, {
    name: "Mosquitto",
    service: broker,
  }];
  const ended = services.filter(({ service }) => !service.isRunning).map(({ name }) => name);
  for (const link of [stage.databaseLink, stage.brokerLink]) {
    link.resume();
    link.cancelCut();
    await link.allow();
  }
  stage.clock?.set(0);
  await waitUntil(async () => {
    await stage.spoolDisk?.heal();
    await postgres.kill("SIGCONT");
    if (!postgres.isRunning) await postgres.start();
    await postgres.query(`ALTER DATABASE "${database.name}" RESET default_transaction_read_only`);
    await database.setLoggerPassword();
    broker.signal("SIGCONT");
    if (broker.users?.[BROKER_USER.username] !== BROKER_USER.password) {
      await broker.setUsers(BROKER_USERS);
    }
    if (!broker.isRunning) await broker.start();
    await using _subscriber = await subscribe(broker, { filter: "nothing" });
    await logger.notice({ isExpected: signal.aborted });
    if (!logger.isRunning) logger.start();
    return true;
  }, { timeoutMs: HEAL_TIMEOUT_MS, what: "all services to work" });
  if (load.isPaused) await resume(stage);
  return signal.aborted ? [] : ended;
}

async function resume({ broker, load }: Stage): Promise<void> {
  try {
    // A broker without the session would discard messages without a subscriber.
    await waitForSubscription(broker, { timeoutMs: SUBSCRIBE_TIMEOUT_MS });
  } finally {
    load.resume();
  }
}
