/**
 * What one connection owes its broker: a PUBACK or PUBREC for each message of QoS 1 or 2, once the
 * message is safe, and a PUBCOMP for each PUBREL.
 */

import { Buffer } from "node:buffer";
import { Fifo } from "../common/fifo.ts";
import type { Delivery } from "../message/delivery.ts";

/** First byte of the acknowledging packets (MQTT 5.0 section 2.1.2). */
const PUBACK = 0x40;
const PUBREC = 0x50;
const PUBCOMP = 0x70;

/**
 * QoS 2 messages whose PUBREC was sent and whose PUBREL is still missing, at most. Mosquitto
 * searches them one by one at each PUBREC, so that a whole backlog of them slows it to a crawl.
 * The limit still keeps a broker busy that is some milliseconds away.
 */
const MAX_UNRELEASED = 250;

/** The acknowledgement of one message, in the order of arrival. */
interface Owed {
  readonly type: typeof PUBACK | typeof PUBREC;
  readonly packetId: number;
  isSafe: boolean;
}

/**
 * Acknowledges messages in the order of their arrival ([MQTT-4.6.0-2] and [MQTT-4.6.0-3]); all
 * acknowledgements that are due at the same time leave in one write.
 *
 * A packet id is acknowledged again only after the PUBREL of its previous use. Mosquitto 2.0 sends
 * a whole backlog at once, reuses packet ids that are still in use, and closes the connection with
 * a protocol error where their handshakes overlap.
 */
export class AcknowledgementQueue {
  readonly #send: (bytes: Buffer) => void;
  readonly #onFlush: () => void;
  readonly #buffer = new AcknowledgementBuffer();
  readonly #inFlight = new Set<Delivery>();
  #inFlightBytes = 0;
  /** One for each message that was delivered, in the order of arrival. */
  readonly #owed = new Fifo<Owed>();
  /**
   * Acknowledgements of safe messages, in the order of arrival: `type << 16 | packetId`. A PUBREC that
   * waits for a PUBREL holds up those behind it.
   */
  readonly #due = new Fifo<number>();
  /** Packet ids whose PUBREC was sent and whose PUBREL is still missing. */
  readonly #unreleased = new Set<number>();
  #flushScheduled = false;
  #closed = false;

  /** `send` writes to the connection; `onFlush` is called whenever fewer messages are in flight. */
  constructor(send: (bytes: Buffer) => void, onFlush: () => void) {
    this.#send = send;
    this.#onFlush = onFlush;
  }

  /** Messages that are not safe yet. */
  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** Bytes of their payloads. */
  get inFlightBytes(): number {
    return this.#inFlightBytes;
  }

  /** Whether every safe message is acknowledged, and every QoS 2 handshake complete. */
  get isIdle(): boolean {
    return this.#due.length === 0 && this.#unreleased.size === 0 && !this.#flushScheduled;
  }

  /**
   * Acknowledges the delivery to the broker of this connection once it is safe. QoS 1 and 2 only.
   * Call it before the delivery is passed on, so that the queue is its listener from the start.
   */
  add(delivery: Delivery, packetId: number): void {
    const owed = { type: delivery.qos === 1 ? PUBACK : PUBREC, packetId, isSafe: false } as const;
    this.#owed.push(owed);
    this.#inFlight.add(delivery);
    this.#inFlightBytes += delivery.payload.length;
    delivery.onSafe = () => this.#markSafe(delivery, owed);
  }

  /** Answers a PUBREL with a PUBCOMP, also where the packet id is unknown. */
  release(packetId: number): void {
    this.#unreleased.delete(packetId);
    this.#buffer.add(PUBCOMP, packetId);
    this.#scheduleFlush();
  }

  /** Forgets the packet ids, which end with the connection; returns the messages in flight. */
  close(): Delivery[] {
    this.#closed = true;
    return [...this.#inFlight];
  }

  /** Sends the acknowledgements that are due, now rather than after the current task. */
  readonly flush = (): void => {
    this.#flushScheduled = false;
    if (this.#closed) return;
    while (this.#owed.first?.isSafe) {
      const { type, packetId } = this.#owed.shift() as Owed;
      this.#due.push(type << 16 | packetId);
    }
    for (let due; (due = this.#due.first) !== undefined; this.#due.shift()) {
      const [type, packetId] = [due >> 16, due & 0xffff];
      if (type === PUBREC) {
        if (this.#unreleased.size >= MAX_UNRELEASED || this.#unreleased.has(packetId)) break;
        this.#unreleased.add(packetId);
      }
      this.#buffer.add(type, packetId);
    }
    const bytes = this.#buffer.take();
    if (bytes) this.#send(bytes);
    this.#onFlush();
  };

  #markSafe(delivery: Delivery, owed: Owed): void {
    this.#inFlight.delete(delivery);
    this.#inFlightBytes -= delivery.payload.length;
    owed.isSafe = true;
    this.#scheduleFlush();
  }

  #scheduleFlush(): void {
    if (this.#flushScheduled || this.#closed) return;
    this.#flushScheduled = true;
    queueMicrotask(this.flush);
  }
}

/**
 * Encodes acknowledgements that consist of the packet id alone. Reason code 0 and an empty property
 * list may be left out (MQTT 5.0 section 3.4.2), so that the bytes are the same for 3.1.1 and 5.
 */
class AcknowledgementBuffer {
  #bytes = Buffer.allocUnsafe(4096);
  #length = 0;

  add(type: number, packetId: number): void {
    if (this.#length + 4 > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(this.#bytes.length * 2);
      this.#bytes.copy(larger);
      this.#bytes = larger;
    }
    const bytes = this.#bytes;
    bytes[this.#length++] = type;
    bytes[this.#length++] = 2;
    bytes[this.#length++] = packetId >> 8;
    bytes[this.#length++] = packetId & 0xff;
  }

  /** A copy of the bytes added since the last call; undefined if none. */
  take(): Buffer | undefined {
    if (this.#length === 0) return undefined;
    const bytes = Buffer.from(this.#bytes.subarray(0, this.#length));
    this.#length = 0;
    return bytes;
  }
}
