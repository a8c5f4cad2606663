/** Reads server-sent events, one after the other. */
import { createParser } from "eventsource-parser";

/** An open stream of events. The caller disposes it. */
export class EventReader implements AsyncDisposable {
  readonly #reader: ReadableStreamDefaultReader<string>;
  readonly #events: { readonly name: string; readonly data: string }[] = [];
  readonly #parser = createParser({
    onEvent: ({ event = "", data }) => this.#events.push({ name: event, data }),
  });

  /** @throws {Error} when the answer is not a stream of events. */
  static async open(url: string): Promise<EventReader> {
    const response = await fetch(url);
    if (response.status !== 200) {
      await response.body?.cancel();
      throw new Error(`${url}: status ${response.status}`);
    }
    return new EventReader(response);
  }

  constructor(response: Response) {
    if (response.body === null) throw new Error("no body");
    this.#reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** The data of the next event of that name; others are skipped. */
  async next(name: string): Promise<unknown> {
    for (;;) {
      for (let event; (event = this.#events.shift()) !== undefined;) {
        if (event.name === name) return JSON.parse(event.data);
      }
      const { value, done } = await this.#reader.read();
      if (done) throw new Error("the stream has ended");
      this.#parser.feed(value);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // An interrupted stream is closed, too.
    await this.#reader.cancel().catch(() => {});
  }
}
