/**
 * Notifies systemd: of readiness, of the status in words, and of progress, for its watchdog
 * (sd_notify(3), sd_watchdog_enabled(3)). Without systemd nothing happens. A failure to notify never
 * affects the logger.
 */

import process from "node:process";
import { describeError } from "../common/error_text.ts";
import type { Environment } from "../config/settings.ts";
import { log } from "../common/log.ts";
import type { Summary } from "./status.ts";

/** Time between two checks of the state. */
const TICK_MS = 1_000;

/** Time between two status notifications; a change of a connection is sent at once. */
const STATUS_MS = 10_000;

/** Returns the state of the logger. */
export type Summarize = () => Summary;

/** Notifies systemd from `start` until `stopping`. The owner awaits `close` at the end. */
export class ServiceManager {
  readonly #socket: NotifySocket;
  readonly #summarize: Summarize;
  readonly #watchdogMs: number | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #statusMs = -Infinity;
  #state = "";
  #fedMs = -Infinity;

  /** Undefined if NOTIFY_SOCKET is not set, or, after a warning, if no socket can be opened. */
  static connect(env: Environment, summarize: Summarize): ServiceManager | undefined {
    const path = env["NOTIFY_SOCKET"];
    if (path === undefined || path === "") return undefined;
    try {
      return new ServiceManager(new NotifySocket(path), { summarize, env });
    } catch (error) {
      log.warning(`Cannot notify systemd at '${path}': ${describeError(error)}.`);
      return undefined;
    }
  }

  private constructor(
    socket: NotifySocket,
    { summarize, env }: { readonly summarize: Summarize; readonly env: Environment },
  ) {
    this.#socket = socket;
    this.#summarize = summarize;
    this.#watchdogMs = watchdogInterval(env);
  }

  /**
   * Notifies that the logger is ready. It is so even if broker or database are unavailable: waiting
   * for them is part of its work, and must not make systemd abort the start.
   */
  start(): void {
    this.#socket.send("READY=1");
    this.#tick();
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  /** Notifies that the logger is stopping. */
  stopping(): void {
    clearInterval(this.#timer);
    this.#socket.send("STOPPING=1\nSTATUS=Storing in-flight messages");
  }

  /** Sends pending notifications and closes the socket. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#socket.close();
  }

  #tick(): void {
    const nowMs = performance.now();
    const summary = this.#summarize();
    // The text of the problem contains a duration, which changes all the time: compare the fact only.
    const isStuck = summary.problem !== null;
    const state = [isStuck, summary.broker.connected, summary.database.connected].join();
    if (state !== this.#state || nowMs - this.#statusMs >= STATUS_MS) {
      this.#state = state;
      this.#statusMs = nowMs;
      this.#socket.send(`STATUS=${describeStatus(summary)}`);
    }
    if (this.#watchdogMs === undefined || isStuck) return;
    if (nowMs - this.#fedMs < this.#watchdogMs / 2 - TICK_MS) return;
    this.#fedMs = nowMs;
    this.#socket.send("WATCHDOG=1");
  }
}

/** The status in one line, as `systemctl status` shows it. */
function describeStatus({ problem, broker, database, counts }: Summary): string {
  const waiting = counts.waiting + counts.spooled;
  return [
    ...(problem === null ? [] : [`Stuck: ${problem}`]),
    `broker ${broker.connected ? "connected" : "unavailable"}`,
    `database ${database.connected ? "connected" : "unavailable"}`,
    `${counts.stored} stored`,
    `${waiting} waiting${counts.spooled > 0 ? ` (${counts.spooled} on disk)` : ""}`,
    ...(counts.rejected > 0 ? [`${counts.rejected} rejected`] : []),
  ].join(", ");
}

/** The watchdog timeout in ms; undefined if systemd does not watch this process. */
function watchdogInterval(env: Environment): number | undefined {
  const micros = Number(env["WATCHDOG_USEC"]);
  const pid = env["WATCHDOG_PID"];
  const isForThisProcess = pid === undefined || pid === "" || Number(pid) === process.pid;
  return isForThisProcess && micros > 0 ? micros / 1000 : undefined;
}

/** Sends datagrams to the notification socket of systemd, in order. */
class NotifySocket {
  readonly #socket: Deno.DatagramConn;
  readonly #path: string;
  #sending: Promise<unknown> = Promise.resolve();

  /** @throws {Error} when no socket to send from can be opened. */
  constructor(path: string) {
    // A leading '@' denotes an abstract socket address, which starts with a null byte (unix(7)).
    this.#path = path.replace(/^@/, "\0");
    // Deno sends datagrams only from a bound socket. Nothing is sent to its name, so the file is
    // removed at once: then no way of exiting leaves it behind.
    const directory = Deno.makeTempDirSync({ prefix: "kraken-logger-" });
    try {
      this.#socket = Deno.listenDatagram({ transport: "unixpacket", path: `${directory}/notify` });
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  }

  /** Sends in the background, after the previous datagram. A failure is logged at DEBUG. */
  send(state: string): void {
    const bytes = new TextEncoder().encode(state);
    const to = { transport: "unixpacket", path: this.#path } as const;
    this.#sending = this.#sending.then(() => this.#socket.send(bytes, to)).catch((error) => {
      log.debug(`Cannot notify systemd of '${state}': ${describeError(error)}.`);
    });
  }

  /** Sends pending datagrams, then closes. */
  async close(): Promise<void> {
    await this.#sending;
    this.#socket.close();
  }
}
