/**
 * A simulated LabKraken node: measures each sensor once a second and publishes the reading with
 * QoS 2, as the data-acquisition daemons do.
 */

import type { MqttClient } from "mqtt";
import type { MqttConfig } from "../lib/config/config.ts";
import { connect, disconnect } from "./mqtt_client.ts";
import { type Sensor, topicOf } from "./sensors.ts";

const INTERVAL_MS = 1_000;

/** Time that the last readings get to reach the broker. */
const STOP_TIMEOUT_MS = 10_000;

export interface NodeOptions {
  readonly sensors: readonly Sensor[];
  /**
   * Whether to publish a reading only after the one before has arrived. Aedes drops messages whose
   * packet ids are not in ascending order, as they may be when several of QoS 2 are under way.
   */
  readonly oneAtATime: boolean;
}

/** A node that publishes until `stop` is called. */
export class SimulatedNode {
  readonly #client: MqttClient;
  readonly #options: NodeOptions;
  readonly #underWay = new Set<Promise<void>>();
  #previous: Promise<void> = Promise.resolve();
  #timer: ReturnType<typeof setInterval> | undefined;
  #published = 0;
  #nextSensor = 0;

  /**
   * Connects to the configured broker.
   *
   * @throws {Error} when it cannot be reached or refuses.
   */
  static async connect(config: MqttConfig, options: NodeOptions): Promise<SimulatedNode> {
    const clientId = `kraken-demo-node-${crypto.randomUUID().slice(0, 6)}`;
    return new SimulatedNode(await connect(config, { clientId, clean: true }), options);
  }

  private constructor(client: MqttClient, options: NodeOptions) {
    this.#client = client;
    this.#options = options;
  }

  /** Readings published so far; those that are still on their way are among them. */
  get published(): number {
    return this.#published;
  }

  /** Publishes from now on: the sensors in turn, spread over the second. */
  start(): void {
    const { sensors } = this.#options;
    const publishNext = (): void => {
      const sensor = sensors[this.#nextSensor++ % sensors.length];
      if (sensor === undefined) return;
      if (sensor.isDue?.(Date.now() / 1000) ?? true) this.#publish(sensor);
    };
    this.#timer = setInterval(publishNext, INTERVAL_MS / sensors.length);
  }

  /**
   * Measures no more, waits until the broker has what is on its way, and disconnects. Readings
   * that the broker did not take within ten seconds are given up, and count as not published.
   * Returns how many those are.
   */
  async stop(): Promise<number> {
    clearInterval(this.#timer);
    const timeout = Promise.withResolvers<void>();
    const timer = setTimeout(timeout.resolve, STOP_TIMEOUT_MS);
    await Promise.race([Promise.all(this.#underWay), timeout.promise]);
    clearTimeout(timer);
    const givenUp = this.#underWay.size;
    this.#published -= givenUp;
    await disconnect(this.#client, givenUp > 0);
    return givenUp;
  }

  #publish(sensor: Sensor): void {
    const microseconds = Math.round((performance.timeOrigin + performance.now()) * 1000);
    const { uuid, sid, unit } = sensor;
    const value = Number(sensor.measure(microseconds / 1e6).toPrecision(8));
    const payload = JSON.stringify({ timestamp: microseconds / 1e6, uuid, sid, value, unit });
    this.#published++;
    const before = this.#options.oneAtATime ? this.#previous : Promise.resolve();
    const arrived = before.then(async () => {
      // What fails here is what `stop` gives up, and has counted.
      await this.#client.publishAsync(topicOf(sensor), payload, { qos: 2 }).catch(() => {});
      this.#underWay.delete(arrived);
    });
    this.#underWay.add(arrived);
    this.#previous = arrived;
  }
}
