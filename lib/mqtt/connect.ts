/** Which version of MQTT to speak with a broker. */

import { describeError } from "../common/error_text.ts";
import { log } from "../common/log.ts";
import type { ProtocolVersion } from "../config/mqtt.ts";
import { MqttNoAnswerError, MqttRefusedError } from "./errors.ts";

/**
 * Connects with MQTT 5, else with 3.1.1: if the broker says that it does not speak 5, and if it
 * closes the connection, as RabbitMQ before 3.13 does.
 *
 * @throws the error of `attempt`; the refusal, if there was one.
 */
export async function connectNewest<Connection>(
  attempt: (version: ProtocolVersion) => Promise<Connection>,
): Promise<Connection> {
  try {
    return await attempt(5);
  } catch (error) {
    const isRefused = error instanceof MqttRefusedError && error.versionRefused;
    if (!isRefused && !(error instanceof MqttNoAnswerError)) throw error;
    log.debug(`MQTT 5: ${describeError(error)}. Trying 3.1.1.`);
    return await attempt(4).catch((second) => {
      throw isRefused || second instanceof MqttRefusedError ? second : error;
    });
  }
}
