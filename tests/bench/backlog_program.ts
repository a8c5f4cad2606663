/**
 * A publisher that is faster than a client library: it fills the broker's queues and is not
 * measured itself. Prints the number of messages when the broker has acknowledged all of them.
 */
import { Buffer } from "node:buffer";
import { connect } from "node:net";
import { generate, type Packet, parser as createParser } from "mqtt-packet";
import { makeReadings, makeSensors, toPayload } from "../services/readings.ts";
import { printResult, readJob } from "./program.ts";

/** What to publish, and to whom. */
export interface BacklogJob {
  readonly host: string;
  readonly port: number;
  readonly qos: 1 | 2;
  readonly count: number;
  /** Sensors that take turns. */
  readonly sensors: number;
}

/** Messages under way; Mosquitto must be set up to allow as many. */
const MAX_OPEN = 1_000;

/** Readings made at a time, so that a million of them need not fit into the memory. */
const CHUNK = 10_000;

const MAX_PACKET_ID = 0xffff;

function* makePackets({ qos, count, sensors }: BacklogJob): Generator<Buffer> {
  let startTimeUs = 1_700_000_000_123_456n;
  for (let made = 0; made < count; made += CHUNK) {
    const readings = makeReadings({
      count: Math.min(CHUNK, count - made),
      sensors: makeSensors(sensors),
      startTimeUs,
      seed: made + 1,
    });
    for (const [index, reading] of readings.entries()) {
      yield generate({
        cmd: "publish",
        topic: `sensors/bench/${reading.uuid}/${reading.sid}`,
        payload: toPayload(reading),
        messageId: (made + index) % MAX_PACKET_ID + 1,
        qos,
        dup: false,
        retain: false,
      });
    }
    startTimeUs = (readings.at(-1)?.timeUs ?? startTimeUs) + 1n;
  }
}

function publish(job: BacklogJob): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const socket = connect({ host: job.host, port: job.port, noDelay: true });
  const send = (packet: Packet): boolean => socket.write(generate(packet));
  const parser = createParser({ protocolVersion: 4 });
  const packets = makePackets(job);
  let open = 0;
  let done = 0;
  const sendMore = (): void => {
    socket.cork();
    for (; open < MAX_OPEN; open++) {
      const { value } = packets.next();
      if (value === undefined) break;
      socket.write(value);
    }
    socket.uncork();
  };
  const finish = (): void => {
    open--;
    done++;
    if (done < job.count) return;
    send({ cmd: "disconnect" });
    socket.end();
    resolve();
  };
  parser.on("packet", (packet) => {
    if (packet.cmd === "pubrec") send({ cmd: "pubrel", messageId: packet.messageId ?? 0 });
    if (packet.cmd === "puback" || packet.cmd === "pubcomp") finish();
  });
  socket.on("data", (bytes: Buffer) => {
    socket.cork();
    parser.parse(bytes);
    sendMore();
    socket.uncork();
  });
  socket.on("error", reject);
  socket.on("close", () => reject(new Error("Publishing: the broker closed the connection")));
  const clientId = "bench-backlog";
  send({ cmd: "connect", protocolId: "MQTT", protocolVersion: 4, clientId, clean: true });
  return promise;
}

if (import.meta.main) {
  const job = readJob<BacklogJob>();
  await publish(job);
  printResult(job.count);
}
