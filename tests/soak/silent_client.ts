/**
 * A client with the client id of another one that receives messages and never acknowledges them, so
 * that the broker keeps all of them for the other client.
 */
import { Buffer } from "node:buffer";
import { connect } from "node:net";
import { generate, type Packet, parser as createParser } from "mqtt-packet";
import type { BrokerAddress } from "../support/mqtt_client.ts";
import { delay, waitUntil } from "../support/poll.ts";

/** The broker, the client id and the credentials. */
export interface ClientIdentity {
  readonly clientId: string;
  readonly username: string;
  readonly password: string;
}

/** Session expiry in seconds: never, or at once. */
const EVER = 0xffff_ffff;
const NOT_AT_ALL = 0;

/** Time between the loss of the session and the next takeover. */
const RETRY_MS = 20;

/**
 * Takes over the session of another client, repeatedly if that client takes it back. The caller
 * disposes it.
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

  /** Whether the broker has resumed an existing session for it. */
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

/** Whether the broker had a session of a client that is not connected. The check deletes it. */
export async function hadSession(
  broker: BrokerAddress,
  identity: ClientIdentity,
): Promise<boolean> {
  const client = new SilentClient(broker, { ...identity, sessionExpiryInterval: NOT_AT_ALL });
  try {
    await waitUntil(() => client.sessionPresent !== undefined, {
      what: "the broker to accept the connection",
    });
    return client.sessionPresent === true;
  } finally {
    client.close();
    await client.closed;
  }
}

interface SessionOptions extends ClientIdentity {
  readonly sessionExpiryInterval: number;
}

/** One connection to the broker. */
class SilentClient {
  /** Resolves when either side has ended the connection. */
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

  /** The CONNACK of the broker; undefined before it has accepted the connection. */
  get sessionPresent(): boolean | undefined {
    return this.#sessionPresent;
  }
}
