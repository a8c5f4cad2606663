/** A first-in-first-out queue without the cost of `Array.shift`. */

/** Elements behind the head that are given back to the memory at once. */
const COMPACT_AT = 16_384;

export class Fifo<T> {
  #elements: T[] = [];
  #head = 0;

  get length(): number {
    return this.#elements.length - this.#head;
  }

  /** The oldest element, undefined where there is none. */
  get first(): T | undefined {
    return this.#elements[this.#head];
  }

  push(element: T): void {
    this.#elements.push(element);
  }

  /** Takes the oldest element, undefined where there is none. */
  shift(): T | undefined {
    return this.take(1)[0];
  }

  /** Takes up to `max` elements, oldest first. */
  take(max: number): T[] {
    const taken = this.#elements.slice(this.#head, this.#head + max);
    this.#head += taken.length;
    if (this.length === 0) {
      this.#elements = [];
      this.#head = 0;
    } else if (this.#head >= COMPACT_AT) {
      this.#elements = this.#elements.slice(this.#head);
      this.#head = 0;
    }
    return taken;
  }
}
