/**
 * A publisher that fills the broker's queues, faster than a client library could. It is not
 * measured itself. Prints the number of messages after the broker has acknowledged all of them.
 */
import { Buffer } from "node:buffer";
import { type PayloadMessage, publishMessages } from "../tests/support/message_publisher.ts";
import { makeReadings, makeSensors, toPayload } from "../tests/support/readings.ts";
import { printResult, readJob } from "./program.ts";

/** The messages to publish, and the broker. */
export interface BacklogJob {
  readonly host: string;
  readonly port: number;
  readonly qos: 1 | 2;
  readonly count: number;
  /** Number of sensors, which publish in turn. */
  readonly sensors: number;
}

/** Maximum unacknowledged messages; Mosquitto must be configured to allow as many. */
const MAX_OPEN = 1_000;

/** Readings generated at a time, so that a million of them need not fit into memory. */
const CHUNK = 10_000;

function* makeMessages({ count, sensors }: BacklogJob): Generator<PayloadMessage> {
  let startTimeUs = 1_700_000_000_123_456n;
  for (let made = 0; made < count; made += CHUNK) {
    const readings = makeReadings({
      count: Math.min(CHUNK, count - made),
      sensors: makeSensors(sensors),
      startTimeUs,
      seed: made + 1,
    });
    for (const reading of readings) {
      yield {
        topic: `sensors/bench/${reading.uuid}/${reading.sid}`,
        payload: Buffer.from(toPayload(reading)),
      };
    }
    startTimeUs = (readings.at(-1)?.timeUs ?? startTimeUs) + 1n;
  }
}

if (import.meta.main) {
  const job = readJob<BacklogJob>();
  await publishMessages({ ...job, maxOpen: MAX_OPEN }, makeMessages(job));
  printResult(job.count);
}
