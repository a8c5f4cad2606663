/** The state of a connection, in words for the page, the metrics and the API. */

/** The connection to the broker, or all connections to the database. */
export interface ConnectionStatus {
  /** Whether it works at the moment. */
  readonly connected: boolean;
  /** In words, such as `connected to 'localhost:1883' (MQTT 5)` or the reason; no full stop. */
  readonly text: string;
  /** Time of the last change of `connected`, in ms since 1970-01-01 00:00 UTC. */
  readonly sinceMs: number;
  /** How many times the connection was lost and made again. */
  readonly reconnects: number;
}

/** Records the state of a connection. The part that opens the connection holds this object. */
export class ConnectionState {
  #status: ConnectionStatus = {
    connected: false,
    text: "connecting",
    sinceMs: Date.now(),
    reconnects: 0,
  };
  #wasConnected = false;

  get status(): ConnectionStatus {
    return this.#status;
  }

  /** The connection works; `text` names the other side, without a full stop. */
  up(text: string): void {
    const { connected, sinceMs, reconnects } = this.#status;
    this.#status = {
      connected: true,
      text,
      sinceMs: connected ? sinceMs : Date.now(),
      reconnects: reconnects + (this.#wasConnected && !connected ? 1 : 0),
    };
    this.#wasConnected = true;
  }

  /** The connection does not work; `reason` says why, without a full stop. */
  down(reason: string): void {
    const { connected, sinceMs, reconnects } = this.#status;
    this.#status = {
      connected: false,
      text: reason,
      sinceMs: connected ? Date.now() : sinceMs,
      reconnects,
    };
  }
}
