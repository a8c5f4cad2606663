/**
 * What the benchmark has open: processes and services, which are closed whatever ends it, Ctrl-C
 * included, also when that comes while one of them is still starting.
 */

/** Owns what {@linkcode Scope.open} opened until it is closed or the scope is disposed. */
export class Scope implements AsyncDisposable {
  readonly #started: Promise<AsyncDisposable>[] = [];
  readonly #closed = new Set<AsyncDisposable>();
  #disposed = false;

  /**
   * Waits for something to start and owns it from then on.
   *
   * @throws what the start throws, and {Error} once the scope is disposed.
   */
  async open<T extends AsyncDisposable>(start: () => T | Promise<T>): Promise<T> {
    if (this.#disposed) throw new Error("Starting something: the benchmark is ending");
    const started = Promise.try(start);
    this.#started.push(started);
    return await started;
  }

  /** Closes one of those that are open; does nothing when it is closed already. */
  async close(resource: AsyncDisposable): Promise<void> {
    if (this.#closed.has(resource)) return;
    this.#closed.add(resource);
    await resource[Symbol.asyncDispose]();
  }

  /** Closes everything, the last opened first; one that fails does not keep the others open. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    const failures: unknown[] = [];
    for (const started of this.#started.reverse()) {
      const resource = await started.catch(() => {
        // It did not start, which whoever started it was told; there is nothing to close.
      });
      if (resource === undefined) continue;
      await this.close(resource).catch((error) => failures.push(error));
    }
    if (failures.length > 0) throw new AggregateError(failures, "Closing what the benchmark used");
  }
}
