/**
 * The common interface of the brokers of the tests.
 */

/** Settings that both brokers understand. */
export interface BrokerOptions {
  /** Passwords by user name; without it, every client may connect. */
  readonly users?: Readonly<Record<string, string>>;
}

/** A broker under the control of a test. Its port stays the same across restarts. */
export interface TestBroker extends AsyncDisposable {
  readonly kind: "mosquitto" | "aedes";
  readonly host: string;
  readonly port: number;
  /** Messages of QoS 1 and 2 that a publisher may have in flight at the same time. */
  readonly receiveMaximum: number;
  /** QoS to publish with if a test does not depend on it. */
  readonly usualQos: 1 | 2;
  readonly isRunning: boolean;
  /** Starts a stopped or killed broker and resolves when it accepts connections. */
  start(): Promise<void>;
  /** Stops it cleanly: sessions and queued messages are kept for the next start. */
  stop(): Promise<void>;
  /** Ends it at once: all that was not saved is lost. */
  kill(): Promise<void>;
  /** Stops and starts; `keepStore: false` deletes sessions and queued messages. */
  restart(options?: RestartOptions): Promise<void>;
}

/** How {@linkcode TestBroker.restart} restarts. */
export interface RestartOptions {
  readonly keepStore?: boolean;
}
