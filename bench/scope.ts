/**
 * Owns the processes and services of the benchmark. They are closed when it ends for any reason,
 * including Ctrl-C while one of them is starting.
 */

/** Owns each resource of {@linkcode Scope.open} until it is closed or the scope is disposed. */
export class Scope implements AsyncDisposable {
  readonly #started: Promise<AsyncDisposable>[] = [];
  readonly #closed = new Set<AsyncDisposable>();
  #disposed = false;

  /**
   * Starts a resource and owns it from then on.
   *
   * @throws what the start throws, and {Error} once the scope is disposed.
   */
  async open<T extends AsyncDisposable>(start: () => T | Promise<T>): Promise<T> {
    if (this.#disposed) throw new Error("Starting something: the benchmark is ending");
    const started = Promise.try(start);
    this.#started.push(started);
    return await started;
  }

  /** Closes a resource. Does nothing if it is closed already. */
  async close(resource: AsyncDisposable): Promise<void> {
    if (this.#closed.has(resource)) return;
    this.#closed.add(resource);
    await resource[Symbol.asyncDispose]();
  }

  /** Closes all resources in reverse order of opening, even if some closings fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    const failures: unknown[] = [];
    for (const started of this.#started.reverse()) {
      const resource = await started.catch(() => {
        // The start failed, which the caller of `open` has received; there is nothing to close.
      });
      if (resource === undefined) continue;
      await this.close(resource).catch((error) => failures.push(error));
    }
    if (failures.length > 0) throw new AggregateError(failures, "Closing what the benchmark used");
  }
}
