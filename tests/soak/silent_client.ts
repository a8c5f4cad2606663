/**
 * A client with the id of another one that takes what the broker hands out and never answers, so
 * that the broker keeps all of it for the other one.
 */
import { Buffer } from "node:buffer";
import { connect } from "node:net";
import { generate, type Packet, parser as createParser } from "mqtt-packet";
import type { BrokerAddress } from "../support/mqtt_client.ts";
import { delay, waitUntil } from "../support/poll.ts";

/** As whom to connect. */
export interface ClientIdentity {
  readonly clientId: string;
  readonly username: string;
  readonly password: string;
}

/** How long the broker keeps the session, in s: until somebody ends it, or not at all. */
const EVER = 0xffff_ffff;
const NOT_AT_ALL = 0;

/** Time between the loss of a session and the next attempt to have it. */
const RETRY_MS = 20;

/**
 * Takes the session of another client over, again and again while that one takes it back. The
 * caller disposes it.
 */
export class SessionThief implements AsyncDisposable {
  readonly #connect: () => SilentClient;
  readonly #running: Promise<void>;
  #client: SilentClient | undefined;
  #isOver = false;

  constructor(broker: BrokerAddress, identity: ClientIdentity) {
    this.#connect = () => new SilentClient(broker, { ...identity, sessionExpiryInterval: EVER });
    this.#running = this.#run();
  }

  /** Whether the broker has let it have a session that was there already. */
  get hasSession(): boolean {
    return this.#client?.sessionPresent ?? false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    this.#client?.close();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#isOver) {
      this.#client = this.#connect();
      await this.#client.closed;
      await delay(RETRY_MS);
    }
  }
}

/** Whether the broker has a session of a client that is not connected. It then has none any more. */
export async function hadSession(
  broker: BrokerAddress,
  identity: ClientIdentity,
): Promise<boolean> {
  const client = new SilentClient(broker, { ...identity, sessionExpiryInterval: NOT_AT_ALL });
  try {
    await waitUntil(() => client.sessionPresent !== undefined, { what: "the broker's consent" });
    return client.sessionPresent === true;
  } finally {
    client.close();
    await client.closed;
  }
}

interface SessionOptions extends ClientIdentity {
  readonly sessionExpiryInterval: number;
}

/** One connection. */
class SilentClient {
  /** Resolves when the connection has ended, whoever has ended it. */
  readonly closed: Promise<void>;
  readonly close: () => void;
  #sessionPresent: boolean | undefined;

  constructor({ host, port }: BrokerAddress, options: SessionOptions) {
    const { clientId, username, password, sessionExpiryInterval } = options;
    const socket = connect({ host, port, noDelay: true });
    const parser = createParser({ protocolVersion: 5 });
    parser.on("packet", (packet: Packet) => {
      if (packet.cmd === "connack" && packet.reasonCode === 0) {
        this.#sessionPresent = packet.sessionPresent;
      }
    });
    socket.on("data", (bytes: Buffer) => parser.parse(bytes));
    // An error is followed by "close".
    socket.on("error", () => {});
    this.closed = new Promise((resolve) => socket.once("close", () => resolve()));
    this.close = () => socket.destroy();
    socket.write(generate({
      ...{ cmd: "connect", protocolId: "MQTT", protocolVersion: 5, clean: false },
      ...{ clientId, username, password: Buffer.from(password), keepalive: 0 },
      properties: { sessionExpiryInterval },
    }));
  }

  /** What the broker has said; undefined before it has consented. */
  get sessionPresent(): boolean | undefined {
    return this.#sessionPresent;
  }
}
