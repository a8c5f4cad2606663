/** Why a broker did not accept a connection. */

import { describeConnectRefusal, isVersionRefusal } from "./reason_codes.ts";

/** The broker answered a CONNECT with a refusal. */
export class MqttRefusedError extends Error {
  override readonly name = "MqttRefusedError";
  /** Whether the broker might accept another protocol version. */
  readonly versionRefused: boolean;

  constructor(code: number) {
    super(describeConnectRefusal(code));
    this.versionRefused = isVersionRefusal(code);
  }
}

/** The broker closed the connection instead of answering the CONNECT. */
export class MqttNoAnswerError extends Error {
  override readonly name = "MqttNoAnswerError";
}
