/**
 * kraken-logger: stores sensor readings from MQTT in PostgreSQL without losing one.
 *
 * Runs the command of the command line, handles signals and sets the exit status.
 */

import metadata from "./deno.json" with { type: "json" };
import { check } from "./lib/commands/check/check.ts";
import { type Command, HELP, parseCommandLine, UsageError } from "./lib/commands/command_line.ts";
import {
  type Config,
  parseConfig,
  parseDatabaseConfig,
  parseHttpConfig,
  parseSpoolConfig,
  parseStorageConfig,
} from "./lib/config/config.ts";
import { describeEndpoint } from "./lib/common/endpoint.ts";
import { readEnvironment, readTextFile } from "./lib/config/environment.ts";
import { healthcheck } from "./lib/commands/healthcheck.ts";
import { HttpError } from "./lib/http/server.ts";
import { init } from "./lib/commands/init.ts";
import { configureLog, isJournal, log } from "./lib/common/log.ts";
import { formatCount } from "./lib/common/text.ts";
import { Logger } from "./lib/logger.ts";
import { listRejected, retryRejected } from "./lib/commands/rejected.ts";
import { report } from "./lib/commands/report/report.ts";
import { ConfigError } from "./lib/config/settings.ts";
import { formatScript, grantStatements, schemaStatements } from "./lib/database/schema.ts";
import { SpoolError } from "./lib/spool/errors.ts";
import { ServiceManager } from "./lib/monitoring/systemd.ts";
import { listUnknown } from "./lib/commands/unknown.ts";

const SUCCESS = 0;
const FAILURE = 1;
/** EX_CONFIG of sysexits.h: a restart fails again until the configuration is changed. */
const CONFIGURATION_ERROR = 78;

const STOP_SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"] as const;

async function execute(command: Command): Promise<number> {
  switch (command.name) {
    case "help":
      print(HELP);
      return SUCCESS;
    case "version":
      print(`kraken-logger ${metadata.version}\n`);
      return SUCCESS;
    case "schema":
      print(formatScript([
        ...schemaStatements(command),
        ...(command.grant === undefined ? [] : grantStatements(command.grant)),
      ]));
      return SUCCESS;
    case "init":
      return await init(parseDatabaseConfig(readEnvironment(), readTextFile), { ...command, print })
        ? SUCCESS
        : FAILURE;
    case "check":
      return await check(parseConfig(readEnvironment(), readTextFile), print) ? SUCCESS : FAILURE;
    case "healthcheck":
      return await healthcheck(parseHttpConfig(readEnvironment(), readTextFile), print)
        ? SUCCESS
        : FAILURE;
    case "report": {
      const config = parseDatabaseConfig(readEnvironment(), readTextFile);
      return await report(config, { ...command, print, printNote }) ? SUCCESS : FAILURE;
    }
    case "rejected":
      return await examineRejected(command);
    case "unknown": {
      const config = parseStorageConfig(readEnvironment(), readTextFile);
      await listUnknown(config, { ...command, print, printNote });
      return SUCCESS;
    }
    case "run":
      return await run();
  }
}

async function examineRejected(command: Command & { name: "rejected" }): Promise<number> {
  if (!command.retry) {
    listRejected(parseSpoolConfig(readEnvironment(), readTextFile), { ...command, print });
    return SUCCESS;
  }
  const config = parseStorageConfig(readEnvironment(), readTextFile);
  return await retryRejected(config, { ...command, print }) ? SUCCESS : FAILURE;
}

async function run(): Promise<number> {
  const config = parseConfig(readEnvironment(), readTextFile);
  configureLog(config.log, { journal: isJournal(Deno.env.get("JOURNAL_STREAM")) });
  for (const warning of config.warnings) log.warning(warning);
  const logger = openLogger(config);
  if (logger === undefined) return FAILURE;
  const stopRequested = nextStopSignal();
  const { failed } = logger.start();
  const manager = ServiceManager.connect(Deno.env.toObject(), () => logger.summary());
  manager?.start();
  const signal = await Promise.race([stopRequested, failed]);
  log.info(`Received ${signal}, storing in-flight messages before exit.`);
  manager?.stopping();
  const unfinished = await logger.stop();
  await manager?.close();
  log.info(`Stopped: ${logger.statistics}.`);
  if (unfinished === 0) return SUCCESS;
  log.error(
    config.mqtt.clientId === undefined
      ? `Could not store ${
        formatCount(unfinished, "message")
      } in time. Messages that are not stored ` +
        "are lost because MQTT_CLIENT_ID is not set."
      : `Could not store ${formatCount(unfinished, "message")} in time. The broker redelivers ` +
        "unacknowledged messages, except those of QoS 0.",
  );
  return FAILURE;
}

/**
 * Opens the logger. Returns undefined, after a log line, if the spool or the HTTP address cannot be
 * used as configured: the operator relies on both, so the program does not run without them.
 */
function openLogger(config: Config): Logger | undefined {
  try {
    return new Logger(config);
  } catch (error) {
    if (error instanceof SpoolError) {
      log.critical(`Cannot use the spool in '${config.spool?.directory}': ${error.message}.`);
    } else if (error instanceof HttpError && config.http) {
      const where = describeEndpoint(config.http);
      log.critical(`Cannot listen on ${where} (HTTP_HOST, HTTP_PORT): ${error.message}.`);
    } else {
      throw error;
    }
    return undefined;
  }
}

/**
 * Within this time, a repetition of the first signal is ignored. One Ctrl-C can arrive several times:
 * the terminal signals every process of the group, and a parent process may forward it as well.
 */
const SAME_SIGNAL_MS = 500;

/** Resolves at the first stop signal, which requests a clean exit. A second one exits at once. */
function nextStopSignal(): Promise<Deno.Signal> {
  const { promise, resolve } = Promise.withResolvers<Deno.Signal>();
  let first: { readonly signal: Deno.Signal; readonly receivedMs: number } | undefined;
  for (const signal of STOP_SIGNALS) {
    Deno.addSignalListener(signal, () => {
      const receivedMs = performance.now();
      first ??= { signal, receivedMs };
      const isRepetition = signal === first.signal &&
        receivedMs < first.receivedMs + SAME_SIGNAL_MS;
      if (!isRepetition) Deno.exit(FAILURE);
      resolve(signal);
    });
  }
  return promise;
}

function print(text: string): void {
  write(Deno.stdout, text);
}

/** Prints what is not part of the output of a command, such as its progress. */
function printNote(text: string): void {
  write(Deno.stderr, text);
}

/** Prints an error. For the journal, each line gets the priority of an error (sd-daemon(3)). */
function printError(text: string): void {
  const isForJournal = isJournal(Deno.env.get("JOURNAL_STREAM"));
  write(Deno.stderr, isForJournal ? text.replaceAll(/^(?=.)/gm, "<3>") : text);
}

function write(stream: typeof Deno.stdout | typeof Deno.stderr, text: string): void {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let written = 0; written < bytes.length;) {
      written += stream.writeSync(bytes.subarray(written));
    }
  } catch (error) {
    // The reader closed the pipe, as `head` does: the rest of the output is not wanted.
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

async function main(): Promise<number> {
  try {
    return await execute(parseCommandLine(Deno.args));
  } catch (error) {
    if (error instanceof ConfigError) {
      printError(`The configuration is invalid:\n${error.message}\n`);
      return CONFIGURATION_ERROR;
    }
    if (error instanceof UsageError) {
      printError(`kraken-logger: ${error.message}. See 'kraken-logger --help'.\n`);
      return FAILURE;
    }
    if (error instanceof SpoolError) {
      printError(`kraken-logger: cannot read the spool: ${error.message}.\n`);
      return FAILURE;
    }
    throw error;
  }
}

if (import.meta.main) Deno.exit(await main());
