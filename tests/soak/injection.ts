/**
 * The schedule of the faults: every kind once per round, in random order, with pauses in between,
 * and sometimes with a fault of the logger during another fault.
 */
import { delay } from "../support/poll.ts";
import { createRandom } from "../support/readings.ts";
import type { EndFault, Fault } from "./fault.ts";
import { FAULTS } from "./faults.ts";
import { heal, type Stage } from "./stage.ts";

/** How {@linkcode injectFaults} injects them. */
export interface InjectionOptions {
  readonly minutes: number;
  readonly seed: number;
}

/** How often one kind of fault was injected, and its total duration. */
export interface FaultCount {
  times: number;
  seconds: number;
}

/** The maximum duration of a fault and of the pause after it, derived from the minutes. */
const MAX_HOLD_MS = 60_000;
const MAX_PAUSE_MS = 20_000;
const HOLD_MS_PER_MINUTE = 2_000;
const PAUSE_MS_PER_MINUTE = 700;

/** The probability of a fault of the logger during another fault. */
const OVERLAP = 1 / 3;

/** Injects the faults one after another. */
export class Injection {
  /** Counts by kind. */
  readonly counts: ReadonlyMap<string, FaultCount>;
  /** Faults that failed, and unexpected ends of services. */
  readonly problems: string[] = [];
  readonly #stage: Stage;
  readonly #options: InjectionOptions;
  readonly #random: () => number;
  #overlaps = 0;
  #current: string | undefined;

  constructor(stage: Stage, options: InjectionOptions) {
    this.#stage = stage;
    this.#options = options;
    this.#random = createRandom(options.seed);
    this.counts = new Map(FAULTS.map(({ kind }) => [kind, { times: 0, seconds: 0 }]));
  }

  /** The current fault; undefined if there is none. */
  get current(): string | undefined {
    return this.#current;
  }

  /** Number of faults so far. */
  get total(): number {
    return this.counts.values().reduce((sum, { times }) => sum + times, 0);
  }

  /** Number of ends of the logger during another fault. */
  get overlaps(): number {
    return this.#overlaps;
  }

  /**
   * Resolves when the time is over and each kind was injected, when a service cannot be repaired,
   * or when the soak is interrupted; a current fault is ended first.
   */
  async run(): Promise<void> {
    const endMs = performance.now() + this.#options.minutes * 60_000;
    for (let round = 0; round === 0 || performance.now() < endMs; round++) {
      for (const fault of this.#shuffle(FAULTS)) {
        if (round > 0 && performance.now() >= endMs) return;
        await this.#pause(PAUSE_MS_PER_MINUTE, MAX_PAUSE_MS);
        if (this.#stage.signal.aborted) return;
        await this.#inject(fault, { withOverlap: this.#random() < OVERLAP });
        if (!await this.#heal(fault)) return;
      }
    }
  }

  async #inject(fault: Fault, { withOverlap }: { withOverlap: boolean }): Promise<void> {
    const { signal } = this.#stage;
    try {
      await this.#hold(fault, async () => {
        await this.#pause(HOLD_MS_PER_MINUTE, MAX_HOLD_MS);
        if (!withOverlap || fault.isLogger || fault.isAlone || signal.aborted) return;
        const ends = FAULTS.filter(({ isLogger }) => isLogger);
        const end = this.#shuffle(ends)[0] as Fault;
        await this.#hold(end, () => this.#pause(HOLD_MS_PER_MINUTE / 4, MAX_HOLD_MS / 4));
        await this.#pause(HOLD_MS_PER_MINUTE / 4, MAX_HOLD_MS / 4);
        this.#overlaps++;
      });
    } catch (error) {
      // A Ctrl-C also ends the services, which causes other errors.
      if (!signal.aborted) this.problems.push(`${fault.kind}: ${error}`);
    } finally {
      this.#current = undefined;
    }
  }

  /** Returns whether all services work again. */
  async #heal({ kind }: Fault): Promise<boolean> {
    try {
      for (const service of await heal(this.#stage)) {
        this.problems.push(`After '${kind}': ${service} has ended unexpectedly`);
      }
      return true;
    } catch (error) {
      this.problems.push(`After '${kind}': ${error}`);
      return false;
    }
  }

  async #hold(fault: Fault, work: () => Promise<void>): Promise<void> {
    this.#current = this.#current === undefined ? fault.kind : `${this.#current}, ${fault.kind}`;
    const startMs = performance.now();
    const end: EndFault = await fault.begin(this.#stage, this.#random);
    try {
      await work();
    } finally {
      await end();
      const count = this.counts.get(fault.kind);
      if (count !== undefined) {
        count.times++;
        count.seconds += (performance.now() - startMs) / 1000;
      }
    }
  }

  /** Waits for a random, mostly short time, or until the signal is aborted. */
  async #pause(msPerMinute: number, maxMs: number): Promise<void> {
    const { minutes } = this.#options;
    const { signal } = this.#stage;
    const durationMs = this.#random() ** 2 * Math.min(maxMs, minutes * msPerMinute);
    const endMs = performance.now() + durationMs;
    while (!signal.aborted && performance.now() < endMs) {
      await delay(Math.min(100, Math.max(0, endMs - performance.now())));
    }
  }

  #shuffle<T>(items: readonly T[]): T[] {
    return items.map((item) => ({ item, order: this.#random() }))
      .sort((first, second) => first.order - second.order)
      .map(({ item }) => item);
  }
}
