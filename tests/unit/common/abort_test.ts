/** Listening to an abort signal. */
import assert from "node:assert/strict";
import { onAbort } from "../../../lib/common/abort.ts";
import { trackListeners } from "../../support/abort_listeners.ts";

Deno.test("the listener is called once when the signal is aborted", () => {
  const stop = new AbortController();
  let calls = 0;
  using _ = onAbort(stop.signal, () => calls++);
  assert.equal(calls, 0);
  stop.abort();
  stop.abort();
  assert.equal(calls, 1);
});

Deno.test("the listener is called at once if the signal is aborted already", () => {
  let calls = 0;
  {
    using _ = onAbort(AbortSignal.abort(), () => calls++);
    assert.equal(calls, 1);
  }
  assert.equal(calls, 1);
});

Deno.test("the listener is not called after the disposal, and is removed from the signal", () => {
  const stop = new AbortController();
  const { signal } = stop;
  const listeners = trackListeners(signal);
  let calls = 0;
  {
    using _ = onAbort(signal, () => calls++);
    assert.equal(listeners.size, 1);
  }
  assert.equal(listeners.size, 0);
  stop.abort();
  assert.equal(calls, 0);
});

Deno.test("each of several listeners ends with its own object", () => {
  const stop = new AbortController();
  const calls: string[] = [];
  const first = onAbort(stop.signal, () => calls.push("first"));
  using _ = onAbort(stop.signal, () => calls.push("second"));
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  stop.abort();
  assert.deepEqual(calls, ["second"]);
});
