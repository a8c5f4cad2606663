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
    const element = this.#elements[this.#head];
    this.#drop(1);
    return element;
  }

  /** Takes up to `max` elements, oldest first. */
  take(max: number): T[] {
    const taken = this.#elements.slice(this.#head, this.#head + max);
    this.#drop(taken.length);
    return taken;
  }

  #drop(count: number): void {
    this.#head += count;
    if (this.#head >= this.#elements.length) {
      this.#elements = [];
      this.#head = 0;
    } else if (this.#head >= COMPACT_AT) {
      this.#elements = this.#elements.slice(this.#head);
      this.#head = 0;
    }
  }
}
