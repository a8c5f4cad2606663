/**
 * What the soak runs on: real services, a proxy in front of each of the two that the logger talks
 * to, the logger, and the load.
 */
import { createSession } from "../program/harness.ts";
import { loggerEnv } from "../services/logger_process.ts";
import { type MosquittoBroker, startMosquitto } from "../services/mosquitto.ts";
import { waitUntil } from "../services/poll.ts";
import { type PostgresServer, startPostgres, type TestDatabase } from "../services/postgres.ts";
import { startProxy, type TcpProxy } from "../services/proxy.ts";
import { subscribe } from "../services/subscriber.ts";
import { withTemporaryDirectory } from "../services/temporary_directory.ts";
import { type Load, LOAD_SENSORS, type LoadOptions, startLoad } from "./load.ts";
import { LoggerKeeper } from "./logger_keeper.ts";

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
}

/** Longest time that the services get to be well again. */
const HEAL_TIMEOUT_MS = 120_000;

/** Starts everything; `resources` owns it. */
export async function openStage(
  resources: AsyncDisposableStack,
  options: LoadOptions,
): Promise<Stage> {
  const directory = resources.use(withTemporaryDirectory());
  const postgres = resources.use(await startPostgres());
  const database = await postgres.createDatabase({ name: "soak" });
  await database.registerSensors(LOAD_SENSORS);
  // While the logger is away, the broker has to keep what comes.
  const broker = resources.use(
    await startMosquitto({ maxInflightMessages: 1000, maxQueuedMessages: 0 }),
  );
  await createSession(broker);
  const databaseLink = resources.use(await startProxy(postgres));
  const brokerLink = resources.use(await startProxy(broker));
  const logger = resources.use(
    new LoggerKeeper(loggerEnv({ database, broker: brokerLink }, {
      DATABASE_HOST: databaseLink.host,
      DATABASE_PORT: String(databaseLink.port),
      SPOOL_DIRECTORY: directory.path,
    })),
  );
  logger.start();
  await logger.waitForLine("Connected to MQTT broker");
  const load = resources.use(startLoad(broker, options));
  return { postgres, database, broker, databaseLink, brokerLink, logger, load };
}

/**
 * Ends every fault that there may be, and starts what does not run: after a Ctrl-C, which a
 * terminal sends to the services too, that is all of them.
 *
 * @throws {Error} when they are not well in time.
 */
export async function heal(
  { postgres, database, broker, databaseLink, brokerLink, logger }: Stage,
  { isInterrupted }: { readonly isInterrupted: boolean },
): Promise<void> {
  for (const link of [databaseLink, brokerLink]) {
    link.resume();
    await link.allow();
  }
  await waitUntil(async () => {
    await postgres.kill("SIGCONT");
    if (!postgres.isRunning) await postgres.start();
    await postgres.query(`ALTER DATABASE "${database.name}" RESET default_transaction_read_only`);
    broker.signal("SIGCONT");
    if (!broker.isRunning) await broker.start();
    await using _subscriber = await subscribe(broker, { filter: "nothing" });
    await logger.notice({ isExpected: isInterrupted });
    if (!logger.isRunning) logger.start();
    return true;
  }, { timeoutMs: HEAL_TIMEOUT_MS, what: "all services to be well" });
}
