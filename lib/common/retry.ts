/**
 * Trying again: one backoff, one way to tell about it, one way to say in words what failed.
 *
 * The log gets one ERROR when something becomes unavailable and one INFO when it is back,
 * however many attempts lie between; the attempts themselves are DEBUG lines.
 */

import { log } from "./log.ts";
import { describeTlsProblem } from "./tls_diagnosis.ts";

/** The longest delay of a `Backoff`, unless another one is asked for. */
export const MAX_DELAY_MS = 15_000;

/**
 * Capped exponential backoff with jitter: 50–100 ms, 100–200, 200–400, … 7.5–15 s, the same for
 * ever after. Jitter keeps several loggers from knocking in step after a common outage.
 */
export class Backoff {
  readonly #firstDelayMs: number;
  readonly #maxDelayMs: number;
  #attempts = 0;

  constructor({ firstDelayMs = 100, maxDelayMs = MAX_DELAY_MS } = {}) {
    this.#firstDelayMs = firstDelayMs;
    this.#maxDelayMs = maxDelayMs;
  }

  /** The time to wait before the next attempt, in ms. */
  nextDelayMs(random: () => number = Math.random): number {
    const exponential = this.#firstDelayMs * 2 ** Math.min(this.#attempts++, 20);
    const ceiling = Math.min(this.#maxDelayMs, exponential);
    return ceiling * (0.5 + 0.5 * random());
  }

  reset(): void {
    this.#attempts = 0;
  }
}

/** Resolves after `ms`, or at once when `signal` is aborted; it never rejects. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const finish = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    signal.addEventListener("abort", finish);
  });
}

/**
 * Tells the log about a service that several parties use. An outage begins with the failure of a
 * party that worked before, and ends when one that failed succeeds: a party that never succeeds
 * while others do is told of once.
 */
export class Outage {
  readonly #service: string;
  readonly #countWaiting: () => number;
  readonly #failing = new Set<unknown>();
  #retryNow = new AbortController();
  #active = false;
  #startMs = 0;
  #mostWaiting = 0;

  /** `service` begins a sentence; `countWaiting` tells how many messages wait for it. */
  constructor(service: string, countWaiting: () => number = () => 0) {
    this.#service = service;
    this.#countWaiting = countWaiting;
  }

  /** One party failed. Resolves when it is to try again: after `delayMs`, or another's success. */
  async failed(party: unknown, options: FailureOptions): Promise<void> {
    const { reason, delayMs, signal } = options;
    if (this.#active || this.#failing.has(party)) {
      log.debug(`${this.#service} is still not available: ${reason}.`);
    } else {
      this.#active = true;
      this.#startMs = performance.now();
      this.#mostWaiting = 0;
      log.error(`${this.#service} is not available: ${reason}. Trying again until it is.`);
    }
    this.#failing.add(party);
    this.#mostWaiting = Math.max(this.#mostWaiting, this.#countWaiting());
    await sleep(delayMs, AbortSignal.any([signal, this.#retryNow.signal]));
  }

  /** The party succeeded. */
  succeeded(party: unknown): void {
    // One that had not failed yet may have had its success on the way when the outage began.
    if (!this.#failing.delete(party) || !this.#active) return;
    this.#active = false;
    this.#retryNow.abort();
    this.#retryNow = new AbortController();
    const seconds = ((performance.now() - this.#startMs) / 1000).toFixed(1);
    const mostWaiting = Math.max(this.#mostWaiting, this.#countWaiting());
    const waited = mostWaiting > 0 ? ` ${mostWaiting} messages waited.` : "";
    log.info(`${this.#service} is available again after ${seconds} s.${waited}`);
  }
}

interface FailureOptions {
  /** In words, without a full stop. */
  readonly reason: string;
  readonly delayMs: number;
  /** Aborted: there will be no other attempt. */
  readonly signal: AbortSignal;
}

const ERRNO_WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused (nothing listens there, or a firewall is in between)",
  ECONNRESET: "the connection was reset by the other side",
  ECONNABORTED: "the connection was aborted",
  EPIPE: "the connection was closed by the other side",
  ETIMEDOUT: "no answer in time",
  // What Deno 2.4 makes of a write to a connection that has just been closed.
  UNKNOWN: "the connection was closed",
  EBADF: "the connection was closed",
  EHOSTUNREACH: "no route to the host",
  ENETUNREACH: "no route to the network",
  ENOTFOUND: "the host name is unknown",
  EAI_AGAIN: "the host name cannot be resolved at the moment",
};

/** Says in words why something failed, without a full stop. */
export function describeError(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) {
    return [...new Set(error.errors.map(describeError))].join("; ");
  }
  if (!(error instanceof Error)) return String(error);
  const code = "code" in error ? String(error.code) : "";
  return ERRNO_WORDS[code] ?? describeTlsProblem(error) ??
    (error.message.replace(/\.$/, "") || code || error.name);
}
