/** The command line of the demo. */
import assert from "node:assert/strict";
import { parseCommandLine, UsageError } from "../../../demo/command_line.ts";

Deno.test("demo's command line accepts a broker with or without port, and rejects invalid ones", () => {
  const broker = (text: string): unknown => parseCommandLine(["--broker", text]).broker;
  assert.deepEqual(broker("lab.example:1884"), { host: "lab.example", port: 1884 });
  assert.deepEqual(broker("lab"), { host: "lab", port: 1883 });
  assert.deepEqual(broker("[::1]:1884"), { host: "::1", port: 1884 });
  assert.deepEqual(parseCommandLine(["--seconds", "7"]).seconds, 7);
  for (const text of ["", "a b", "mqtt://lab", "lab:0", "lab:65536", "user@lab", "lab/x"]) {
    assert.throws(() => broker(text), UsageError, text);
  }
  for (const args of [["--seconds", "0"], ["--seconds", "1.5"], ["--brokers", "lab"], ["lab"]]) {
    assert.throws(() => parseCommandLine(args), UsageError, args.join(" "));
  }
});
