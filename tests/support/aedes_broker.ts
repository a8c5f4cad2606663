/**
 * Aedes, a broker that runs in the process of the tests, for machines without Mosquitto. It speaks
 * only MQTT 3.1.1, and refuses MQTT 5 with return code 1.
 */
import { Aedes } from "aedes";
import { createServer, type Server, type Socket } from "node:net";
import type { BrokerOptions, RestartOptions, TestBroker } from "./broker_types.ts";
import { findFreePort, LOOPBACK } from "./ports.ts";

/** Starts Aedes and waits until it accepts connections. The caller disposes it. */
export async function startAedes(options: BrokerOptions = {}): Promise<AedesBroker> {
  const broker = new AedesBroker(options);
  await broker.initialize();
  return broker;
}

/**
 * Aedes under the control of a test. Its store is in memory: {@linkcode AedesBroker.stop}
 * keeps it, {@linkcode AedesBroker.kill} does not.
 */
export class AedesBroker implements TestBroker {
  readonly kind = "aedes";
  readonly host: string = LOOPBACK;
  /**
   * If a publisher has several messages of QoS 2 in flight, they may be completed in another order
   * than that of their packet ids. Aedes then drops the later ones as duplicates.
   */
  readonly receiveMaximum = 1;
  /**
   * A fast subscriber may send its PUBREC before Aedes has recorded its own PUBLISH. Aedes then never
   * sends the PUBREL, for which the subscriber waits when it disconnects.
   */
  readonly usualQos = 1;
  readonly #options: BrokerOptions;
  readonly #sockets = new Set<Socket>();
  #port = 0;
  #broker: Aedes | undefined;
  #server: Server | undefined;

  /** Use {@linkcode startAedes}. */
  constructor(options: BrokerOptions) {
    this.#options = options;
  }

  get port(): number {
    return this.#port;
  }

  get isRunning(): boolean {
    return this.#server !== undefined;
  }

  /** Starts for the first time. Only {@linkcode startAedes} calls it. */
  async initialize(): Promise<void> {
    for (let attempt = 1;; attempt++) {
      this.#port = findFreePort();
      try {
        return await this.start();
      } catch (error) {
        if ((error as { code?: string }).code !== "EADDRINUSE" || attempt === 10) {
          throw error;
        }
      }
    }
  }

  async start(): Promise<void> {
    if (this.isRunning) {
      throw new Error("Starting Aedes: already running");
    }
    this.#broker ??= await this.#createBroker();
    const server = createServer((socket) => this.#accept(socket));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.#port, this.host, resolve);
    });
    this.#server = server;
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) {
      return;
    }
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    this.#sockets.forEach((socket) => socket.destroy());
    await closed;
  }

  async kill(): Promise<void> {
    await this.stop();
    await this.#forget();
  }

  async restart({ keepStore = true }: RestartOptions = {}): Promise<void> {
    await (keepStore ? this.stop() : this.kill());
    await this.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  async #createBroker(): Promise<Aedes> {
    const { users } = this.#options;
    const authenticate = (name?: string, password?: Uint8Array): boolean =>
      users === undefined ||
      (name !== undefined && users[name] === new TextDecoder().decode(password));
    return await Aedes.createBroker({
      authenticate: (_client, name, password, done) => {
        const isAllowed = authenticate(name, password);
        if (isAllowed) {
          done(null, true);
        } else {
          done(Object.assign(new Error("not allowed"), { returnCode: 4 }), false);
        }
      },
    });
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    this.#broker?.handle(socket);
  }

  async #forget(): Promise<void> {
    const broker = this.#broker;
    this.#broker = undefined;
    if (broker !== undefined) {
      await new Promise<void>((resolve) => broker.close(() => resolve()));
    }
  }
}
