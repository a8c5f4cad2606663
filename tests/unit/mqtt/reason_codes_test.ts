/** The reasons of brokers, in words that name the settings to check. */
import assert from "node:assert/strict";
import {
  describeConnectRefusal,
  describeReason,
  isVersionRefusal,
} from "../../../lib/mqtt/reason_codes.ts";

Deno.test("refusals of MQTT 3.1.1 and of MQTT 5 are recognized, and have the same words", () => {
  for (const code of [1, 0x84]) {
    assert.ok(isVersionRefusal(code));
    assert.match(describeConnectRefusal(code), /version of MQTT/);
  }
  assert.equal(describeConnectRefusal(4), describeConnectRefusal(0x86));
  assert.match(describeConnectRefusal(4), /wrong user name or password/);
  assert.match(describeConnectRefusal(5), /not authorized/);
  assert.match(describeConnectRefusal(0x87), /not authorized/);
  for (const code of [4, 5, 0x86, 0x87]) {
    assert.match(describeConnectRefusal(code), /MQTT_CLIENT_USER.* MQTT_CLIENT_PASSWORD/);
  }
  assert.equal(describeConnectRefusal(2), describeConnectRefusal(0x85));
  assert.match(describeConnectRefusal(2), /MQTT_CLIENT_ID/);
  for (const code of [0, 2, 5, 0x85, 0x86]) assert.ok(!isVersionRefusal(code));
});

Deno.test("reasons are sentences without a full stop, and unknown ones keep their number", () => {
  for (let code = 0x80; code <= 0xa2; code++) {
    assert.match(describeReason(code), /^[a-z].*[^.]$/);
    assert.equal(describeConnectRefusal(code), describeReason(code));
  }
  assert.match(describeReason(0x8e), /same client id/);
  assert.match(describeReason(0xff), /0xff/);
  assert.match(describeConnectRefusal(9), /0x09/);
});
