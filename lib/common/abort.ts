/** Listening to an abort signal for as long as some work takes. */

/**
 * Calls the listener when the signal is aborted, also if it is aborted already, until the returned
 * object is disposed.
 */
export function onAbort(signal: AbortSignal, listener: () => void): Disposable {
  if (signal.aborted) listener();
  else signal.addEventListener("abort", listener);
  return { [Symbol.dispose]: () => signal.removeEventListener("abort", listener) };
}
