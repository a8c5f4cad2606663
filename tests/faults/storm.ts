/**
 * A storm: a steady load while the database is unavailable for half of the time, or all of it.
 */
import assert from "node:assert/strict";
import { delay } from "../support/poll.ts";
import { publishReadings } from "../support/publisher.ts";
import { makeReadings, type Reading } from "../support/readings.ts";
import type { Scene } from "./spool_scene.ts";

/** Numbers from 0 to below 1, reproducible by the seed. */
type Random = () => number;

/**
 * The behavior of the database during a storm: it comes and goes, by refusing connections or by
 * stalling them; it refuses connections until the end; or it stalls until the end.
 */
export type Weather = "comes and goes" | "is unavailable" | "stalls";

/** A storm; see {@linkcode Storm}. */
export interface StormOptions {
  readonly random: Random;
  /** Readings per second. */
  readonly rate: number;
  /** `comes and goes` by default. */
  readonly weather?: Weather | undefined;
}

/** The publishers have enough readings for this time. */
const MAX_STORM_SECONDS = 600;

/** Publishes readings of QoS 1 and 2 at a steady rate. */
export class Storm implements AsyncDisposable {
  readonly #scene: Scene;
  readonly #random: Random;
  readonly #over = new AbortController();
  readonly #publishers: readonly Promise<readonly Reading[]>[];
  readonly #weather: Promise<void>;

  constructor(scene: Scene, { random, rate, weather = "comes and goes" }: StormOptions) {
    this.#scene = scene;
    this.#random = random;
    this.#publishers = ([1, 2] as const).map((qos) => this.#publish(qos, rate / 2));
    this.#weather = this.#let(weather);
    // Kept until `end`, which throws their errors.
    for (const task of [...this.#publishers, this.#weather]) task.catch(() => {});
  }

  /** Makes the database available, and returns the published readings. */
  async end(): Promise<Reading[]> {
    this.#over.abort();
    await this.#weather;
    return (await Promise.all(this.#publishers)).flat();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort();
    await Promise.allSettled([...this.#publishers, this.#weather]);
  }

  async #publish(qos: 1 | 2, rate: number): Promise<readonly Reading[]> {
    // Years apart from each other.
    const startTimeUs = BigInt(qos) * 1_000_000_000_000_000n;
    const readings = makeReadings({ count: rate * MAX_STORM_SECONDS, startTimeUs, seed: qos });
    const { signal } = this.#over;
    const count = await publishReadings(this.#scene.broker, readings, { qos, rate, signal });
    assert.ok(count < readings.length, "the publisher had nothing left to publish");
    return readings.slice(0, count);
  }

  async #let(weather: Weather): Promise<void> {
    if (weather === "comes and goes") return await this.#letDatabaseComeAndGo();
    await this.#takeDatabaseAway({ isRefused: weather === "is unavailable" });
    const { signal } = this.#over;
    if (!signal.aborted) {
      await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    }
    await this.#bringDatabaseBack();
  }

  async #letDatabaseComeAndGo(): Promise<void> {
    while (!this.#over.signal.aborted) {
      await delay(100 + this.#random() * 500);
      await this.#takeDatabaseAway({ isRefused: this.#random() < 0.7 });
      await delay(100 + this.#random() * 500);
      await this.#bringDatabaseBack();
    }
  }

  async #takeDatabaseAway({ isRefused }: { readonly isRefused: boolean }): Promise<void> {
    if (isRefused) await this.#scene.takeDatabaseAway();
    else this.#scene.proxy.pause();
  }

  async #bringDatabaseBack(): Promise<void> {
    this.#scene.proxy.resume();
    await this.#scene.bringDatabaseBack();
  }
}
