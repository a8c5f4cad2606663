/**
 * Splits text into lines, for the output of child processes.
 */

/** Splits a stream of text into lines without line ends; the last line needs no line feed. */
export class TextLineStream extends TransformStream<string, string> {
  constructor() {
    let rest = "";
    super({
      transform(chunk: string, controller: TransformStreamDefaultController<string>): void {
        const lines = (rest + chunk).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) {
          controller.enqueue(line.endsWith("\r") ? line.slice(0, -1) : line);
        }
      },
      flush(controller: TransformStreamDefaultController<string>): void {
        if (rest !== "") {
          controller.enqueue(rest);
        }
      },
    });
  }
}
