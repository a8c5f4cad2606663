/**
 * A publisher in a process of its own that is faster than a client library, for large numbers of
 * messages with any content.
 */
import { Buffer } from "node:buffer";
import { connect } from "node:net";
import { fileURLToPath } from "node:url";
import { generate, type Packet, parser as createParser } from "mqtt-packet";
import type { BrokerAddress } from "./mqtt_client.ts";
import { runSuccessfully } from "./process.ts";

/** A message to publish. */
export interface PayloadMessage {
  readonly topic: string;
  readonly payload: Uint8Array;
}

/** What the process is told, beside the messages. */
interface Job {
  readonly host: string;
  readonly port: number;
  readonly qos: 1 | 2;
  readonly maxOpen: number;
  /** The file with the messages, as {@linkcode writeMessages} writes it. */
  readonly path: string;
}

const MAX_PACKET_ID = 0xffff;

/**
 * Publishes messages in their order, and resolves when the broker has acknowledged all of them;
 * returns how many there were.
 *
 * @throws {Error} with the output of the process when it fails, as when the connection is lost.
 */
export async function publishPayloadsFast(
  { host, port, receiveMaximum = 20 }: BrokerAddress,
  messages: Iterable<PayloadMessage>,
  { qos }: { readonly qos: 1 | 2 },
): Promise<number> {
  const path = Deno.makeTempFileSync({ prefix: "kraken-test-" });
  try {
    const count = writeMessages(path, messages);
    const job: Job = { host, port, qos, maxOpen: receiveMaximum, path };
    const config = fileURLToPath(new URL("../../deno.json", import.meta.url));
    const args = ["run", "--allow-all", "--quiet", "--no-check", "--config", config];
    await runSuccessfully(Deno.execPath(), {
      args: [...args, fileURLToPath(import.meta.url), JSON.stringify(job)],
    });
    return count;
  } finally {
    Deno.removeSync(path);
  }
}

/** Each message as the length of its topic, the topic, the length of its payload, the payload. */
function writeMessages(path: string, messages: Iterable<PayloadMessage>): number {
  const chunks: Buffer[] = [];
  let count = 0;
  for (const { topic, payload } of messages) {
    const topicBytes = Buffer.from(topic);
    const lengths = Buffer.alloc(8);
    lengths.writeUInt32LE(topicBytes.length, 0);
    lengths.writeUInt32LE(payload.length, 4);
    chunks.push(lengths, topicBytes, Buffer.from(payload));
    count++;
  }
  Deno.writeFileSync(path, Buffer.concat(chunks));
  return count;
}

function* readMessages(path: string): Generator<PayloadMessage> {
  const file = Buffer.from(Deno.readFileSync(path));
  for (let at = 0; at < file.length;) {
    const topicEnd = at + 8 + file.readUInt32LE(at);
    const payloadEnd = topicEnd + file.readUInt32LE(at + 4);
    yield {
      topic: file.toString("utf8", at + 8, topicEnd),
      payload: file.subarray(topicEnd, payloadEnd),
    };
    at = payloadEnd;
  }
}

function* makePackets({ path, qos }: Job): Generator<Buffer> {
  let published = 0;
  for (const { topic, payload } of readMessages(path)) {
    yield generate({
      cmd: "publish",
      topic,
      payload: Buffer.from(payload),
      messageId: published++ % MAX_PACKET_ID + 1,
      qos,
      dup: false,
      retain: false,
    });
  }
}

function publish(job: Job): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const socket = connect({ host: job.host, port: job.port, noDelay: true });
  const send = (packet: Packet): boolean => socket.write(generate(packet));
  const parser = createParser({ protocolVersion: 4 });
  const packets = makePackets(job);
  let open = 0;
  let isAllSent = false;
  const sendMore = (): void => {
    for (; open < job.maxOpen; open++) {
      const { value } = packets.next();
      isAllSent ||= value === undefined;
      if (value === undefined) break;
      socket.write(value);
    }
    if (!isAllSent || open > 0) return;
    send({ cmd: "disconnect" });
    socket.end();
    resolve();
  };
  parser.on("packet", (packet) => {
    if (packet.cmd === "pubrec") send({ cmd: "pubrel", messageId: packet.messageId ?? 0 });
    if (packet.cmd === "puback" || packet.cmd === "pubcomp") open--;
  });
  socket.on("data", (bytes: Buffer) => {
    socket.cork();
    parser.parse(bytes);
    sendMore();
    socket.uncork();
  });
  socket.on("error", reject);
  socket.on("close", () => reject(new Error("Publishing: the broker closed the connection")));
  send({ cmd: "connect", protocolId: "MQTT", protocolVersion: 4, clientId: "", clean: true });
  return promise;
}

if (import.meta.main) await publish(JSON.parse(Deno.args[0] ?? "null") as Job);
