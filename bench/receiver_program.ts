/**
 * A receiver that only acknowledges: the maximum rate of the broker. It uses the MQTT connection of
 * the logger, which handles the behavior of Mosquitto 2.0 after a backlog, and stores nothing.
 */
import { DEFAULT_TUNING } from "../lib/config/tuning.ts";
import { MqttConnection } from "../lib/mqtt/connection.ts";
import type { Delivery } from "../lib/message/delivery.ts";
import { printResult, readJob } from "./program.ts";

/** The messages to receive, and the broker. */
export interface ReceiverJob {
  readonly host: string;
  readonly port: number;
  readonly clientId: string;
  readonly count: number;
}

/** The measured time. */
export interface ReceiverResult {
  /** From the first message to the end of the last handover. */
  readonly seconds: number;
}

async function receive({ host, port, clientId, count }: ReceiverJob): Promise<ReceiverResult> {
  const received = Promise.withResolvers<void>();
  let deliveries: Delivery[] = [];
  let startMs: number | undefined;
  let rest = count;
  const settleAll = (): void => {
    const settled = deliveries;
    deliveries = [];
    for (const delivery of settled) delivery.markSafe();
    rest -= settled.length;
    if (rest === 0) received.resolve();
  };
  const connection = await MqttConnection.open({
    endpoint: { host, port },
    tls: undefined,
    protocolVersion: 5,
    clientId,
    persistent: true,
    user: undefined,
    password: undefined,
    earlierInFlight: () => ({ count: 0, bytes: 0 }),
    onMessage: (delivery, acknowledge) => {
      startMs ??= performance.now();
      acknowledge(delivery);
      // All messages of one segment are acknowledged together.
      if (deliveries.length === 0) queueMicrotask(settleAll);
      deliveries.push(delivery);
    },
    tuning: DEFAULT_TUNING,
    signal: new AbortController().signal,
  });
  const closed = connection.closed.then((reason) => {
    throw new Error(`Receiving: ${reason}, ${rest} messages were not received`);
  });
  await Promise.race([received.promise, closed]);
  closed.catch(() => {
    // The disconnect below is intended.
  });
  await connection.disconnect();
  return { seconds: (performance.now() - (startMs ?? 0)) / 1000 };
}

if (import.meta.main) {
  printResult(await receive(readJob<ReceiverJob>()));
  // The process stays alive, so that its CPU time can be read.
  await new Promise((resolve) => setTimeout(resolve, 60_000));
}
