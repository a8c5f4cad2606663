/**
 * A publisher in a separate process, which is faster than a client library, for large numbers of
 * messages with any content.
 */
import { Buffer } from "node:buffer";
import { fileURLToPath } from "node:url";
import { type PayloadMessage, publishMessages, type PublishTarget } from "./message_publisher.ts";
import type { BrokerAddress } from "./mqtt_client.ts";
import { runSuccessfully } from "./process.ts";

/** The argument of the process. */
interface Job extends PublishTarget {
  /** The file with the messages, as {@linkcode writeMessages} writes it. */
  readonly path: string;
}

/**
 * Publishes messages in their order, and resolves when the broker has acknowledged all of them.
 * Returns their number.
 *
 * @throws {Error} with the output of the process when it fails, for instance when the connection is
 * lost.
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
    const config = fileURLToPath(new URL("../deno.json", import.meta.url));
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

if (import.meta.main) {
  const job = JSON.parse(Deno.args[0] ?? "null") as Job;
  await publishMessages(job, readMessages(job.path));
}
