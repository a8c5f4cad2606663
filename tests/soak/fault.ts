/** The interface of a fault of the soak, and waiting for its effects. */
import { waitUntil } from "../support/poll.ts";
import type { Stage } from "./stage.ts";

/** Ends a fault. `heal` repairs its remaining effects. */
export type EndFault = () => Promise<void> | void;

/** A kind of fault. */
export interface Fault {
  /** Its name in the summary. */
  readonly kind: string;
  /** Whether it is a fault of the logger itself, which may be injected during another fault. */
  readonly isLogger?: boolean;
  /** Whether the logger must run throughout, because it could not start or stop during it. */
  readonly isAlone?: boolean;
  /** A requirement that this machine lacks; the fault is skipped then. */
  readonly lacks?: string | undefined;
  /**
   * Injects the fault, and resolves when its effect was observed.
   *
   * @throws {Error} when no effect was observed.
   */
  readonly begin: (stage: Stage, random: () => number) => Promise<EndFault>;
}

/** Maximum time until a fault has an effect, including the time the logger needs before. */
const SHOW_TIMEOUT_MS = 120_000;

/**
 * Waits until a fault has an effect, or its precondition holds.
 *
 * @throws {Error} when that takes too long, or the soak is interrupted.
 */
export async function waitFor(
  { signal }: Stage,
  condition: () => unknown,
  what: string,
): Promise<void> {
  await waitUntil(async () => signal.aborted || await condition() || null, {
    timeoutMs: SHOW_TIMEOUT_MS,
    what,
  });
  signal.throwIfAborted();
}

/** Waits until `count` more readings are due, which does not depend on the services. */
export async function waitForDue(stage: Stage, count: number): Promise<void> {
  const target = stage.load.due + count;
  await waitFor(stage, () => stage.load.due >= target, `${count} readings`);
}

/** Asserts that no bytes pass while readings are due, which would cause packets otherwise. */
export async function expectSilence(stage: Stage, bytes: () => number): Promise<void> {
  // Packets that were already on their way may pass.
  await waitForDue(stage, 20);
  const before = bytes();
  await waitForDue(stage, 50);
  const passed = bytes() - before;
  if (passed !== 0) throw new Error(`${passed} bytes have passed, expected none`);
}
