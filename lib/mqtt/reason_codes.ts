/** The meaning of the codes that brokers send, with the settings to check. */

/** Return codes of CONNACK before MQTT 5 (MQTT 3.1.1 section 3.2.2.3). */
const RETURN_CODES: Readonly<Record<number, string>> = {
  1: "the broker does not speak this version of MQTT",
  2: "the broker refuses the client id (check MQTT_CLIENT_ID)",
  3: "the broker's MQTT service is unavailable",
  4: "wrong user name or password (check MQTT_CLIENT_USER and MQTT_CLIENT_PASSWORD)",
  5: "not authorized (wrong user name or password in MQTT_CLIENT_USER and MQTT_CLIENT_PASSWORD, " +
    "or this user may not connect)",
};

/** The reason codes of MQTT 5 that a subscriber can receive (MQTT 5.0 section 2.4). */
const REASON_CODES: Readonly<Record<number, string>> = {
  0x00: "closed by the broker",
  0x80: "unspecified error",
  0x81: "the broker received a malformed packet",
  0x82: "the broker detected a protocol error",
  0x83: "implementation-specific error of the broker",
  0x84: "the broker does not speak this version of MQTT",
  0x85: "the broker refuses the client id (check MQTT_CLIENT_ID)",
  0x86: "wrong user name or password (check MQTT_CLIENT_USER and MQTT_CLIENT_PASSWORD)",
  0x87: "not authorized (check the user name in MQTT_CLIENT_USER, the password in " +
    "MQTT_CLIENT_PASSWORD and the broker's access list)",
  0x88: "the broker's MQTT service is unavailable",
  0x89: "the broker is busy",
  0x8a: "this client is banned",
  0x8b: "the broker is shutting down",
  0x8c: "the broker requires another authentication method",
  0x8d: "the broker received no packet within the keepalive time",
  0x8e: "another client has connected with the same client id",
  0x8f: "the broker does not accept this topic filter",
  0x90: "the broker does not accept this topic name",
  0x91: "the packet identifier is in use",
  0x93: "more unacknowledged messages than the receive maximum allows",
  0x95: "a packet is larger than allowed",
  0x96: "the message rate is too high",
  0x97: "a quota of the broker is exceeded",
  0x98: "closed by an administrator",
  0x99: "the payload does not match its declared format",
  0x9c: "the broker asks the client to use another server",
  0x9d: "the broker has moved to another server",
  0x9e: "the broker does not support shared subscriptions",
  0x9f: "the broker's limit of connections per second is exceeded",
  0xa0: "the broker's maximum connection time has passed",
  0xa1: "the broker does not support subscription identifiers",
  0xa2: "the broker does not support wildcard subscriptions",
};

/** The meaning of the code of a CONNACK. Codes below 0x80 are those of MQTT 3.1.1. */
export function describeConnectRefusal(code: number): string {
  return (code < 0x80 ? RETURN_CODES[code] : REASON_CODES[code]) ?? unknown(code);
}

/** The meaning of a reason code of MQTT 5. A SUBACK of MQTT 3.1.1 has only 0x80 for failure. */
export function describeReason(code: number): string {
  return REASON_CODES[code] ?? unknown(code);
}

/** Whether the code of a CONNACK means that the broker does not support the protocol version. */
export function isVersionRefusal(code: number): boolean {
  return code === 1 || code === 0x84;
}

function unknown(code: number): string {
  return `reason code 0x${code.toString(16).padStart(2, "0")}`;
}
