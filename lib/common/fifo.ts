/** A first-in-first-out queue without the cost of `Array.shift`. */

/** Elements that are given back to the memory together. */
const CHUNK = 1_024;

export class Fifo<T> {
  readonly #chunks: T[][] = [];
  /** Of the first chunk. */
  #head = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** The oldest element, undefined where there is none. */
  get first(): T | undefined {
    return this.#chunks[0]?.[this.#head];
  }

  push(element: T): void {
    const last = this.#chunks.at(-1);
    if (last === undefined || last.length === CHUNK) this.#chunks.push([element]);
    else last.push(element);
    this.#length++;
  }

  /** Takes the oldest element, undefined where there is none. */
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

  /** Up to `max` elements, oldest first, which stay. */
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

  /** Takes up to `max` elements, oldest first. */
  take(max: number): T[] {
    const taken: T[] = [];
    while (taken.length < max && this.#length > 0) taken.push(this.shift() as T);
    return taken;
  }
}
