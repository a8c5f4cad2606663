/** Which version of MQTT to speak with a broker. */

import type { ProtocolVersion } from "../config/config.ts";
import { log } from "../common/log.ts";
import { type MqttConnection, MqttNoAnswerError, MqttRefusedError } from "./connection.ts";
import { describeError } from "../common/retry.ts";

/**
 * Connects with MQTT 5, else with 3.1.1: where the broker says that it does not speak 5, and where
 * it hangs up, as RabbitMQ before 3.13 does.
 *
 * @throws what `attempt` throws; the refusal, where there is one.
 */
export async function openNewest(
  attempt: (version: ProtocolVersion) => Promise<MqttConnection>,
): Promise<MqttConnection> {
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
