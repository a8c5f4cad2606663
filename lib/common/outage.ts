/**
 * An outage of a service in the log: one ERROR when it begins and one INFO when it is over, however
 * many attempts lie between. The attempts themselves are DEBUG lines.
 */

import { sleep } from "./backoff.ts";
import { log } from "./log.ts";
import { formatCount } from "./text.ts";

/**
 * The outages of a service that several parties use. An outage begins with the failure of a party
 * that worked before, and ends when a party that failed succeeds. A party that never succeeds while
 * others do is logged once.
 */
export class Outage {
  readonly #service: string;
  readonly #countWaiting: () => number;
  readonly #failing = new Set<unknown>();
  #retryNow = new AbortController();
  #active = false;
  #startMs = 0;
  #mostWaiting = 0;

  /** `service` begins a sentence; `countWaiting` returns how many messages wait for it. */
  constructor(service: string, countWaiting: () => number = () => 0) {
    this.#service = service;
    this.#countWaiting = countWaiting;
  }

  /** A party failed. Resolves when it is to retry: after `delayMs`, or after another's success. */
  async failed(party: unknown, options: FailureOptions): Promise<void> {
    const { reason, delayMs, signal } = options;
    if (this.#active || this.#failing.has(party)) {
      log.debug(`${this.#service} is still not available: ${reason}.`);
    } else {
      this.#active = true;
      this.#startMs = performance.now();
      this.#mostWaiting = 0;
      log.error(`${this.#service} is not available: ${reason}. Retrying until it is.`);
    }
    this.#failing.add(party);
    this.#mostWaiting = Math.max(this.#mostWaiting, this.#countWaiting());
    await sleep(delayMs, AbortSignal.any([signal, this.#retryNow.signal]));
  }

  /** A party succeeded. */
  succeeded(party: unknown): void {
    // The success of a party that had not failed may have begun before the outage.
    if (!this.#failing.delete(party) || !this.#active) return;
    this.#active = false;
    this.#retryNow.abort();
    this.#retryNow = new AbortController();
    const seconds = ((performance.now() - this.#startMs) / 1000).toFixed(1);
    const mostWaiting = Math.max(this.#mostWaiting, this.#countWaiting());
    const waited = mostWaiting > 0 ? ` ${formatCount(mostWaiting, "message")} waited.` : "";
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
