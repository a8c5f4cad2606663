/** Publishes as fast as the broker accepts messages, for the programs that fill its queues. */
import { Buffer } from "node:buffer";
import { connect } from "node:net";
import { generate, type Packet, parser as createParser } from "mqtt-packet";

/** A message to publish. */
export interface PayloadMessage {
  readonly topic: string;
  readonly payload: Uint8Array;
}

/** Where and how to publish. */
export interface PublishTarget {
  readonly host: string;
  readonly port: number;
  readonly qos: 1 | 2;
  /** Maximum number of messages in flight; the configuration of the broker must allow it. */
  readonly maxOpen: number;
}

const MAX_PACKET_ID = 0xffff;

function* makePackets(messages: Iterable<PayloadMessage>, qos: 1 | 2): Generator<Buffer> {
  let published = 0;
  for (const { topic, payload } of messages) {
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

/** Publishes messages in their order; resolves when the broker has acknowledged all of them. */
export function publishMessages(
  { host, port, qos, maxOpen }: PublishTarget,
  messages: Iterable<PayloadMessage>,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const socket = connect({ host, port, noDelay: true });
  const send = (packet: Packet): boolean => socket.write(generate(packet));
  const parser = createParser({ protocolVersion: 4 });
  const packets = makePackets(messages, qos);
  let open = 0;
  let isAllSent = false;
  const sendMore = (): void => {
    for (; open < maxOpen; open++) {
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
