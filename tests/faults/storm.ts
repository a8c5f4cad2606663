/**
 * A storm: readings that keep coming while the database is away for half of the time, or all of it.
 */
import assert from "node:assert/strict";
import { delay } from "../support/poll.ts";
import { publishReadings } from "../support/publisher.ts";
import { makeReadings, type Reading } from "../support/readings.ts";
import type { Scene } from "./spool_scene.ts";

/** Numbers from 0 to below 1, the same for the same seed. */
type Random = () => number;

/**
 * What the database does during a storm: it comes and goes, now refusing connections, now carrying
 * nothing; it refuses them until the end; or it carries nothing until the end.
 */
export type Weather = "comes and goes" | "is away" | "stalls";

/** A storm; see {@linkcode Storm}. */
export interface StormOptions {
  readonly random: Random;
  /** Readings a second. */
  readonly rate: number;
  /** `comes and goes` by default. */
  readonly weather?: Weather | undefined;
}

/** What the publishers have is enough for so long. */
const MAX_STORM_SECONDS = 600;

/** Publishes readings of QoS 1 and 2 steadily, whatever the database does. */
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
    // Held until `end`, which throws what went wrong.
    for (const task of [...this.#publishers, this.#weather]) task.catch(() => {});
  }

  /** Lets the database stay; returns what has been published. */
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
    // Years apart.
    const startTimeUs = BigInt(qos) * 1_000_000_000_000_000n;
    const readings = makeReadings({ count: rate * MAX_STORM_SECONDS, startTimeUs, seed: qos });
    const { signal } = this.#over;
    const count = await publishReadings(this.#scene.broker, readings, { qos, rate, signal });
    assert.ok(count < readings.length, "the publisher had nothing left to publish");
    return readings.slice(0, count);
  }

  async #let(weather: Weather): Promise<void> {
    if (weather === "comes and goes") return await this.#letDatabaseComeAndGo();
    await this.#takeDatabaseAway({ isRefused: weather === "is away" });
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
