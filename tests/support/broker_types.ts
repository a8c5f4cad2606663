/**
 * What the brokers of the tests have in common.
 */

/** Settings that both brokers understand. */
export interface BrokerOptions {
  /** User names to passwords; without it, everybody may connect. */
  readonly users?: Readonly<Record<string, string>>;
}

/** A broker under the control of a test. Its port stays the same across restarts. */
export interface TestBroker extends AsyncDisposable {
  readonly kind: "mosquitto" | "aedes";
  readonly host: string;
  readonly port: number;
  /** Messages of QoS 1 and 2 that a publisher may have open at the same time. */
  readonly receiveMaximum: number;
  /** QoS to publish with where it does not matter to a test. */
  readonly usualQos: 1 | 2;
  readonly isRunning: boolean;
  /** Starts a stopped or killed broker and resolves when it accepts connections. */
  start(): Promise<void>;
  /** Stops it cleanly: sessions and queued messages are kept for the next start. */
  stop(): Promise<void>;
  /** Ends it at once: what it had not yet saved is lost. */
  kill(): Promise<void>;
  /** Stops and starts; `keepStore: false` makes it forget sessions and queued messages. */
  restart(options?: RestartOptions): Promise<void>;
}

/** How {@linkcode TestBroker.restart} restarts. */
export interface RestartOptions {
  readonly keepStore?: boolean;
}
