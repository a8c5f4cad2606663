/**
 * Tells systemd how the logger is: that it runs, in words how it stands, and that it still moves
 * (sd_notify(3), sd_watchdog_enabled(3)). Without systemd nothing happens; what cannot be told
 * never disturbs the logger.
 */

import process from "node:process";
import { describeError } from "../common/error_text.ts";
import type { Environment } from "../config/settings.ts";
import { log } from "../common/log.ts";
import type { Summary } from "./status.ts";

/** Time between two looks at what there is to tell. */
const LOOK_MS = 1_000;

/** A status that changes all the time is told so often. */
const STATUS_MS = 10_000;

/** What is told of. */
export type Summarize = () => Summary;

/** Tells from `start` until `stop`. */
export class ServiceManager {
  readonly #socket: NotifySocket;
  readonly #summarize: Summarize;
  readonly #watchdogMs: number | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #statusMs = -Infinity;
  #state = "";
  #fedMs = -Infinity;

  /** Undefined where nobody wants to be told. */
  static connect(env: Environment, summarize: Summarize): ServiceManager | undefined {
    const path = env["NOTIFY_SOCKET"];
    if (path === undefined || path === "") return undefined;
    try {
      return new ServiceManager(new NotifySocket(path), { summarize, env });
    } catch (error) {
      log.warning(`Cannot tell systemd anything at '${path}': ${describeError(error)}.`);
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
   * The logger takes messages from now on. Whether broker and database are there does not matter:
   * to wait for them is part of its work, and no reason for systemd to give it up.
   */
  start(): void {
    this.#socket.send("READY=1");
    this.#look();
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  /** The logger ends. */
  stopping(): void {
    clearInterval(this.#timer);
    this.#socket.send("STOPPING=1\nSTATUS=Finishing what is in hand");
  }

  /** After the end. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#socket.close();
  }

  #look(): void {
    const nowMs = performance.now();
    const summary = this.#summarize();
    // How long something has stood still changes with every look, that it does is told at once.
    const isStanding = summary.problem !== null;
    const state = [isStanding, summary.broker.connected, summary.database.connected].join();
    if (state !== this.#state || nowMs - this.#statusMs >= STATUS_MS) {
      this.#state = state;
      this.#statusMs = nowMs;
      this.#socket.send(`STATUS=${describeStatus(summary)}`);
    }
    if (this.#watchdogMs === undefined || isStanding) return;
    if (nowMs - this.#fedMs < this.#watchdogMs / 2 - LOOK_MS) return;
    this.#fedMs = nowMs;
    this.#socket.send("WATCHDOG=1");
  }
}

/** One line, as `systemctl status` shows it. */
export function describeStatus({ problem, broker, database, counts }: Summary): string {
  const waiting = counts.waiting + counts.spooled;
  return [
    ...(problem === null ? [] : [`Stands still: ${problem}`]),
    `broker ${broker.connected ? "connected" : "away"}`,
    `database ${database.connected ? "connected" : "away"}`,
    `${counts.stored} stored`,
    `${waiting} waiting${counts.spooled > 0 ? ` (${counts.spooled} on disk)` : ""}`,
    ...(counts.rejected > 0 ? [`${counts.rejected} rejected`] : []),
  ].join(", ");
}

/** In ms; undefined where this process is not watched. */
function watchdogInterval(env: Environment): number | undefined {
  const micros = Number(env["WATCHDOG_USEC"]);
  const pid = env["WATCHDOG_PID"];
  const isMeant = pid === undefined || pid === "" || Number(pid) === process.pid;
  return isMeant && micros > 0 ? micros / 1000 : undefined;
}

/** Sends datagrams to the socket of systemd. */
class NotifySocket {
  readonly #socket: Deno.DatagramConn;
  readonly #path: string;
  #sending: Promise<unknown> = Promise.resolve();

  /** @throws {Error} when no socket can be made to send from. */
  constructor(path: string) {
    // A name that begins so is not one of a file (unix(7), "abstract").
    this.#path = path.replace(/^@/, "\0");
    // Deno sends datagrams only from a socket with a name of its own. Nobody answers to that name:
    // it goes at once, so that no way of ending leaves it behind.
    const directory = Deno.makeTempDirSync({ prefix: "kraken-logger-" });
    try {
      this.#socket = Deno.listenDatagram({ transport: "unixpacket", path: `${directory}/notify` });
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  }

  send(state: string): void {
    const bytes = new TextEncoder().encode(state);
    const to = { transport: "unixpacket", path: this.#path } as const;
    this.#sending = this.#sending.then(() => this.#socket.send(bytes, to)).catch((error) => {
      log.debug(`Cannot tell systemd '${state}': ${describeError(error)}.`);
    });
  }

  /** Sends what is to be sent, and closes. */
  async close(): Promise<void> {
    await this.#sending;
    this.#socket.close();
  }
}
