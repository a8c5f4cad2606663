/**
 * The load of the soak: a daemon per QoS, and one whose messages must not be stored. All messages
 * are derived from their number, so that recording them needs no memory for any duration.
 */
import { type Daemon, type DaemonMessage, startDaemon } from "../support/daemon.ts";
import type { BrokerAddress } from "../support/mqtt_client.ts";
import {
  createRandom,
  formatSeconds,
  makeSensors,
  type Reading,
  toPayload,
} from "../support/readings.ts";

/** How {@linkcode startLoad} publishes. */
export interface LoadOptions {
  readonly seed: number;
  /** Readings per second. */
  readonly rate: number;
}

/** Waits for a condition, which the text describes. */
export type Wait = (condition: () => boolean, what: string) => Promise<void>;

/** The only readings of a time range, for the comparison with the table. */
export interface Chunk {
  readonly readings: readonly Reading[];
  /** The SQL condition that selects their rows. */
  readonly where: string;
}

/** Number of readings per comparison. */
const CHUNK = 50_000;

/** Sensors of a daemon; two daemons have those of the reference installation. */
const SENSORS = 125;

/** Number of additional messages per hundred readings that must not be stored. */
const NOISE_PERCENT = 4;

/** The times of the readings of different daemons are ten years apart. */
const START_US = 1_700_000_000_000_000n;
const DAEMON_US = 315_360_000_000_000n;

/** Time between two readings of a daemon; not a multiple of a millisecond. */
const STEP_US = 2003n;

/** All sensors of the load, in the form in which they are registered. */
export const LOAD_SENSORS = [1, 2].flatMap((qos) => makeSensors(SENSORS, qos));

/** A daemon and its readings. */
class Source {
  readonly qos: 1 | 2;
  readonly #seed: number;
  readonly #sensors: readonly { readonly uuid: string; readonly sid: number }[];

  constructor(qos: 1 | 2, seed: number) {
    this.qos = qos;
    this.#seed = seed * 2 + qos;
    this.#sensors = makeSensors(SENSORS, qos);
  }

  reading(index: number): Reading {
    const { uuid, sid } = this.#sensors[index % SENSORS] as { uuid: string; sid: number };
    const value = createRandom(this.#seed + index)() * 1000 - 500;
    return { uuid, sid, timeUs: this.#timeUs(index), value };
  }

  message(index: number): DaemonMessage {
    const reading = this.reading(index);
    return { topic: `sensors/soak/${reading.uuid}/${reading.sid}`, payload: toPayload(reading) };
  }

  *chunks(count: number): Generator<Chunk> {
    for (let from = 0; from < count; from += CHUNK) {
      const length = Math.min(CHUNK, count - from);
      const readings = Array.from({ length }, (_, index) => this.reading(from + index));
      const [fromSql, toSql] = [from, from + length].map((index) =>
        `timestamptz 'epoch' + ${this.#timeUs(index)} * interval '1 microsecond'`
      );
      yield { readings, where: `time >= ${fromSql} AND time < ${toSql}` };
    }
  }

  #timeUs(index: number): bigint {
    return START_US + BigInt(this.qos) * DAEMON_US + BigInt(index) * STEP_US;
  }
}

/** Starts publishing. The caller disposes the load. */
export function startLoad(broker: BrokerAddress, options: LoadOptions): Load {
  return new Load(broker, options);
}

/** The publishers, which publish until `finish` is called. */
export class Load implements AsyncDisposable {
  readonly #sources: readonly { readonly source: Source; readonly daemon: Daemon }[];
  readonly #noise: Daemon;
  readonly #rate: number;

  /** Use {@linkcode startLoad}. */
  constructor(broker: BrokerAddress, { seed, rate }: LoadOptions) {
    this.#rate = rate;
    this.#sources = ([1, 2] as const).map((qos) => {
      const source = new Source(qos, seed);
      const message = (index: number): DaemonMessage => source.message(index);
      return { source, daemon: startDaemon(broker, { qos, rate: rate / 2, message }) };
    });
    this.#noise = startDaemon(broker, {
      qos: 1,
      rate: rate * NOISE_PERCENT / 100,
      message: makeNoise,
    });
  }

  /** Readings per second. */
  get rate(): number {
    return this.#rate;
  }

  /** Readings that are due so far, independent of the services. */
  get due(): number {
    return this.#sources.reduce((sum, { daemon }) => sum + daemon.due, 0);
  }

  /** Readings that the broker has acknowledged. */
  get readings(): number {
    return this.#sources.reduce((sum, { daemon }) => sum + daemon.acknowledged, 0);
  }

  /** Messages that are not readings of registered sensors. */
  get noise(): number {
    return this.#noise.acknowledged;
  }

  /** The messages of {@linkcode noise} that must be rejected, by their unique part. */
  get rejected(): string[] {
    return Array.from({ length: this.noise }, (_, index) => index).filter(isNonsense)
      .map(nonsense);
  }

  /** Messages that were published again after the loss of a connection. */
  get repetitions(): number {
    return this.#daemons.reduce((sum, { repetitions }) => sum + repetitions, 0);
  }

  get isPaused(): boolean {
    return this.#daemons.some((daemon) => daemon.isPaused);
  }

  /**
   * Pauses the messages that must not be stored; resolves when the broker has acknowledged them.
   */
  async pauseNoise(wait: Wait): Promise<void> {
    this.#noise.pause();
    await wait(() => this.#noise.open === 0, "the broker to take over what is not to be stored");
  }

  /**
   * Pauses all publishers, while readings become due; resolves when the broker has acknowledged all
   * published messages, the readings of each QoS last.
   */
  async pause(wait: Wait): Promise<void> {
    await this.pauseNoise(wait);
    const daemons = this.#sources.map(({ daemon }) => ({ daemon, due: daemon.due }));
    await wait(
      () => daemons.every(({ daemon, due }) => daemon.acknowledged > due),
      "readings behind what is not to be stored",
    );
    for (const { daemon } of daemons) daemon.pause();
    await wait(
      () => daemons.every(({ daemon }) => daemon.open === 0),
      "the broker to take over all readings",
    );
  }

  /** Resumes, starting with the readings that became due meanwhile. */
  resume(): void {
    for (const daemon of this.#daemons) daemon.resume();
  }

  /** Ends the publishing; resolves when the broker has acknowledged all messages. */
  async finish(options: { readonly timeoutMs: number }): Promise<void> {
    await Promise.all(this.#daemons.map((daemon) => daemon.finish(daemon.due, options)));
  }

  /** All readings, after the end. */
  *chunks(): Generator<Chunk> {
    for (const { source, daemon } of this.#sources) yield* source.chunks(daemon.acknowledged);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#daemons.map((daemon) => daemon[Symbol.asyncDispose]()));
  }

  get #daemons(): Daemon[] {
    return [...this.#sources.map(({ daemon }) => daemon), this.#noise];
  }
}

/** Alternates between an invalid payload and a reading of an unregistered sensor. */
function makeNoise(index: number): DaemonMessage {
  const topic = "sensors/soak/noise";
  if (isNonsense(index)) return { topic, payload: nonsense(index) };
  const [sensor] = makeSensors(1, 3 + index % 50);
  const time = formatSeconds(START_US + BigInt(index));
  return { topic, payload: `{"timestamp": ${time}, "uuid": "${sensor?.uuid}", "value": 1}` };
}

function isNonsense(index: number): boolean {
  return index % 2 === 0;
}

function nonsense(index: number): string {
  return `{"timestamp": "soon", "number": ${index}`;
}
