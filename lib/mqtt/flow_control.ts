/**
 * Stops reading the socket of a connection while too many messages are in flight. Bounds the memory
 * against brokers that do not keep to the receive maximum, and against payloads far larger than
 * readings.
 */

import type { Socket } from "node:net";
import { RECEIVE_MAXIMUM } from "../message/delivery.ts";

/** Messages in flight above which the socket is not read, and below which it is read again. */
const PAUSE_ABOVE = RECEIVE_MAXIMUM;
const RESUME_BELOW = 6_000;

/** The same in bytes of the payloads, for publishers that send more than readings. */
const PAUSE_ABOVE_BYTES = 64 * 2 ** 20;
const RESUME_BELOW_BYTES = 48 * 2 ** 20;

/** Messages in flight, and bytes of their payloads. */
export interface InFlight {
  readonly count: number;
  readonly bytes: number;
}

/** Pauses and resumes one socket. */
export class FlowControl {
  readonly #socket: Pick<Socket, "pause" | "resume">;
  readonly #inFlight: () => InFlight;
  #isPaused = false;

  /** `inFlight` returns the messages in flight of this and of earlier connections. */
  constructor(socket: Pick<Socket, "pause" | "resume">, inFlight: () => InFlight) {
    this.#socket = socket;
    this.#inFlight = inFlight;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Pauses if too many messages are in flight. Call it when messages have arrived. */
  pauseIfFull(): void {
    const { count, bytes } = this.#inFlight();
    if (count <= PAUSE_ABOVE && bytes <= PAUSE_ABOVE_BYTES) return;
    this.#isPaused = true;
    this.#socket.pause();
  }

  /** Resumes if there is room. Call it when fewer messages are in flight. Returns whether it did. */
  resumeWithRoom(): boolean {
    if (!this.#isPaused) return false;
    const { count, bytes } = this.#inFlight();
    if (count >= RESUME_BELOW || bytes >= RESUME_BELOW_BYTES) return false;
    this.resume();
    return true;
  }

  /** Resumes in any case. */
  resume(): void {
    this.#isPaused = false;
    this.#socket.resume();
  }
}
