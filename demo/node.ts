/**
 * A simulated LabKraken node: measures each sensor once a second and publishes the reading with
 * QoS 2, like the data-acquisition daemons.
 */

import type { MqttClient } from "mqtt";
import type { MqttConfig } from "../lib/config/mqtt.ts";
import { connect, disconnect } from "./mqtt_client.ts";
import { type Sensor, topicOf } from "./sensors.ts";

const INTERVAL_MS = 1_000;

/** How long the last readings may take to reach the broker. */
const STOP_TIMEOUT_MS = 10_000;

/** What a node measures and how it publishes. */
export interface NodeOptions {
  readonly sensors: readonly Sensor[];
  /**
   * Whether to publish a reading only after the broker has the previous one. Aedes drops messages
   * whose packet ids are not in ascending order, which happens when several messages of QoS 2 are in
   * flight.
   */
  readonly oneAtATime: boolean;
}

/** A node that publishes until `stop` is called. */
export class SimulatedNode {
  readonly #client: MqttClient;
  readonly #options: NodeOptions;
  readonly #inFlight = new Set<Promise<void>>();
  #previous: Promise<void> = Promise.resolve();
  #timer: ReturnType<typeof setInterval> | undefined;
  #published = 0;
  #nextSensor = 0;

  /**
   * Connects to the configured broker.
   *
   * @throws {Error} if the broker cannot be reached or refuses the connection.
   */
  static async connect(config: MqttConfig, options: NodeOptions): Promise<SimulatedNode> {
    const clientId = `kraken-demo-node-${crypto.randomUUID().slice(0, 6)}`;
    return new SimulatedNode(await connect(config, { clientId, clean: true }), options);
  }

  private constructor(client: MqttClient, options: NodeOptions) {
    this.#client = client;
    this.#options = options;
  }

  /** Number of readings published so far, including those in flight. */
  get published(): number {
    return this.#published;
  }

  /** Starts publishing: the sensors in turn, evenly distributed over the second. */
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
   * Stops measuring, waits until the broker has the readings in flight, and disconnects. Readings
   * that the broker does not accept within ten seconds are dropped and count as not published.
   *
   * @returns the number of dropped readings.
   */
  async stop(): Promise<number> {
    clearInterval(this.#timer);
    const timeout = Promise.withResolvers<void>();
    const timer = setTimeout(timeout.resolve, STOP_TIMEOUT_MS);
    await Promise.race([Promise.all(this.#inFlight), timeout.promise]);
    clearTimeout(timer);
    const dropped = this.#inFlight.size;
    this.#published -= dropped;
    await disconnect(this.#client, dropped > 0);
    return dropped;
  }

  #publish(sensor: Sensor): void {
    const microseconds = Math.round((performance.timeOrigin + performance.now()) * 1000);
    const { uuid, sid, unit } = sensor;
    const value = Number(sensor.measure(microseconds / 1e6).toPrecision(8));
    const payload = JSON.stringify({ timestamp: microseconds / 1e6, uuid, sid, value, unit });
    this.#published++;
    const before = this.#options.oneAtATime ? this.#previous : Promise.resolve();
    const arrived = before.then(async () => {
      // It fails only after `stop` has dropped and counted the reading.
      await this.#client.publishAsync(topicOf(sensor), payload, { qos: 2 }).catch(() => {});
      this.#inFlight.delete(arrived);
    });
    this.#inFlight.add(arrived);
    this.#previous = arrived;
  }
}
