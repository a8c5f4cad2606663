/**
 * What the soak runs on: real services, a proxy in front of each of the two that the logger talks
 * to, the logger, and the load.
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

/** All that there is. */
export interface Stage {
  readonly postgres: PostgresServer;
  readonly database: TestDatabase;
  readonly broker: MosquittoBroker;
  /** What the logger connects to in their place. */
  readonly databaseLink: TcpProxy;
  readonly brokerLink: TcpProxy;
  readonly logger: LoggerKeeper;
  readonly load: Load;
  /** Where the spool is; undefined, and in a temporary directory, where nobody may mount. */
  readonly spoolDisk: SpoolDisk | undefined;
  /** Undefined where libfaketime is missing. */
  readonly clock: FakeClock | undefined;
  /** Aborted when somebody interrupts the soak. */
  readonly signal: AbortSignal;
}

/** How the logger connects to the broker, which lets the daemons in without. */
export const BROKER_USER = { username: "logger", password: "right" };

/** All users of the broker. */
export const BROKER_USERS = { [BROKER_USER.username]: BROKER_USER.password };

/** Few, so that all of them are soon taken. */
const MAX_CONNECTIONS = "12";

/** Longest time that the services get to be well again. */
const HEAL_TIMEOUT_MS = 120_000;

/** Longest time that the logger gets to subscribe, after the longest of its delays. */
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
  // While the logger is away, the broker has to keep what comes.
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
 * Ends every fault that there may be, and starts what does not run: after a Ctrl-C, which a
 * terminal sends to the services too, that is all of them.
 *
 * @returns the services that have ended without having been asked to.
 * @throws {Error} when they are not well in time.
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
  }, { timeoutMs: HEAL_TIMEOUT_MS, what: "all services to be well" });
  if (load.isPaused) await resume(stage);
  return signal.aborted ? [] : ended;
}

async function resume({ broker, load }: Stage): Promise<void> {
  try {
    // A broker that has forgotten the session would throw away what nobody subscribes to.
    await waitForSubscription(broker, { timeoutMs: SUBSCRIBE_TIMEOUT_MS });
  } finally {
    load.resume();
  }
}
