/** Deliveries with readings, as a broker would deliver them. */
import { Buffer } from "node:buffer";
import { Delivery, type QoS } from "../../lib/message/delivery.ts";

/** The sensor of all readings made here; they differ in sid. */
export const SENSOR = "c4ca4238-a0b9-4382-8dcc-509a6f75849b";

export interface DeliveryOptions {
  readonly qos?: QoS;
  /** The value as the payload has it. */
  readonly value?: string;
}

/** A reading of the sensor with this sid, on the topic `kraken/SID`. */
export function readingDelivery(
  sid: number,
  { qos = 1, value = "1.5" }: DeliveryOptions = {},
): Delivery {
  const payload = `{"timestamp": 1700000000.25, "uuid": "${SENSOR}", "sid": ${sid}, ` +
    `"value": ${value}, "unit": "K"}`;
  return new Delivery(`kraken/${sid}`, Buffer.from(payload), { qos });
}

/** Readings of the sensors with the sids 0, 1, … */
export function readingDeliveries(count: number, options: DeliveryOptions = {}): Delivery[] {
  return Array.from({ length: count }, (_, sid) => readingDelivery(sid, options));
}

/** A delivery whose payload is not a reading. */
export function invalidDelivery(topic = "kraken/invalid"): Delivery {
  return new Delivery(topic, Buffer.from("not a reading"), { qos: 1 });
}

/** The states of deliveries, for a comparison. */
export function statesOf(deliveries: readonly Delivery[]): string[] {
  return deliveries.map(({ state }) => state);
}
