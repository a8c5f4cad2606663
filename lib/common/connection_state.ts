/** The state of a connection in words, for whoever looks at it from outside. */

import type { ConnectionStatus } from "../monitoring/status.ts";

/** Kept by whoever makes the connection. */
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

  /** It works; `text` says with whom, without a full stop. */
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

  /** It does not work; `reason` says why, without a full stop. */
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
