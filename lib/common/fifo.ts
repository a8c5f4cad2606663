/** A first-in-first-out queue. Unlike `Array.shift`, `shift` takes constant time. */

/** Elements in a chunk. The memory of a chunk is freed when all its elements have been removed. */
const CHUNK = 1_024;

/** The queue. */
export class Fifo<T> {
  readonly #chunks: T[][] = [];
  /** Index of the oldest element in the first chunk. */
  #head = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** The oldest element; undefined if the queue is empty. */
  get first(): T | undefined {
    return this.#chunks[0]?.[this.#head];
  }

  push(element: T): void {
    const last = this.#chunks.at(-1);
    if (last === undefined || last.length === CHUNK) this.#chunks.push([element]);
    else last.push(element);
    this.#length++;
  }

  /** Removes and returns the oldest element; undefined if the queue is empty. */
  shift(): T | undefined {
    const chunk = this.#chunks[0];
    if (chunk === undefined) return undefined;
    const element = chunk[this.#head++];
    this.#length--;
    if (this.#head === chunk.length) {
      this.#chunks.shift();
      this.#head = 0;
    }
    return element;
  }

  /** Returns up to `max` elements, oldest first, without removing them. */
  peek(max: number): T[] {
    const elements: T[] = [];
    let head = this.#head;
    for (const chunk of this.#chunks) {
      elements.push(...chunk.slice(head, head + max - elements.length));
      if (elements.length === max) break;
      head = 0;
    }
    return elements;
  }

  /** Removes and returns up to `max` elements, oldest first. */
  take(max: number): T[] {
    const taken: T[] = [];
    while (taken.length < max && this.#length > 0) taken.push(this.shift() as T);
    return taken;
  }
}
