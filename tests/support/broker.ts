/**
 * The MQTT broker of the tests: Mosquitto, which the laboratories use, or Aedes if Mosquitto is not
 * installed.
 */
import { startAedes } from "./aedes_broker.ts";
import type { BrokerOptions, TestBroker } from "./broker_types.ts";
import { startMosquitto } from "./mosquitto.ts";
import { findProgram } from "./programs.ts";

export type { BrokerOptions, TestBroker } from "./broker_types.ts";

/**
 * Starts Mosquitto if it is installed, else Aedes; `KRAKEN_TEST_BROKER=aedes` forces the
 * latter. The caller disposes the broker.
 *
 * @throws {Error} when `CI` is `true` and Mosquitto is not installed: the tests must not pass with
 * another broker than the real one.
 */
export async function startBroker(options: BrokerOptions = {}): Promise<TestBroker> {
  const isForced = Deno.env.get("KRAKEN_TEST_BROKER") === "aedes";
  if (!isForced && findProgram("mosquitto") !== null) {
    return await startMosquitto(options);
  }
  if (!isForced && Deno.env.get("CI") === "true") {
    throw new Error("Starting a broker: Mosquitto is not installed, but CI=true requires it");
  }
  return await startAedes(options);
}
