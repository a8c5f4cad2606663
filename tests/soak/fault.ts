/**
 * What a fault of the soak is, and how it shows.
 */
import { waitUntil } from "../support/poll.ts";
import type { Stage } from "./stage.ts";

/** Ends a fault; what is left of it then, `heal` sees to. */
export type EndFault = () => Promise<void> | void;

/** A kind of fault. */
export interface Fault {
  /** As the summary has it. */
  readonly kind: string;
  /** Whether it is one of the logger itself, which may come on top of another one. */
  readonly isLogger?: boolean;
  /** Whether the logger has to live through it, since it could not start or end as it should. */
  readonly isAlone?: boolean;
  /** What it needs and this machine does not have: it is left out. */
  readonly lacks?: string | undefined;
  /**
   * Begins it, and resolves when it has shown.
   *
   * @throws {Error} when it does not.
   */
  readonly begin: (stage: Stage, random: () => number) => Promise<EndFault>;
}

/** Longest time that a fault gets to show, with what the logger may have to do before. */
const SHOW_TIMEOUT_MS = 120_000;

/**
 * Waits until a fault has shown, or what it needs is there.
 *
 * @throws {Error} when that does not come in time, or the soak is interrupted.
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

/** Waits until so many more readings have fallen due, which they do at any time. */
export async function waitForDue(stage: Stage, count: number): Promise<void> {
  const target = stage.load.due + count;
  await waitFor(stage, () => stage.load.due >= target, `${count} readings`);
}

/** Asserts that nothing passes while readings fall due, which each cause packets in health. */
export async function expectSilence(stage: Stage, bytes: () => number): Promise<void> {
  // What was on its way is let pass.
  await waitForDue(stage, 20);
  const before = bytes();
  await waitForDue(stage, 50);
  const passed = bytes() - before;
  if (passed !== 0) throw new Error(`${passed} bytes have passed, where none should`);
}
