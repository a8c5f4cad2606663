/** What is asked of a broker for the session, and what it grants. */

import type { ProtocolVersion } from "../config/mqtt.ts";

/**
 * How long the broker is asked to keep the session of a logger that is not connected (MQTT 5 section
 * 3.1.2.11.2): longer than any holidays of a laboratory.
 */
export const SESSION_EXPIRY_SECONDS = 60 * 24 * 3600;

/** What the broker announced when it accepted the connection. */
export interface BrokerLimits {
  /** Whether the broker had kept a session of this client id. */
  readonly sessionPresent: boolean;
  /** Seconds that the broker keeps the session after a disconnection; undefined before MQTT 5. */
  readonly sessionExpirySeconds: number | undefined;
  /** Undefined before MQTT 5, which does not announce it. */
  readonly sharedSubscriptions: boolean | undefined;
  readonly wildcardSubscriptions: boolean;
}

/** The parts of a CONNACK that have the limits; no properties before MQTT 5. */
interface Connack {
  readonly sessionPresent: boolean;
  readonly properties?: {
    readonly sessionExpiryInterval?: number;
    readonly sharedSubscriptionAvailable?: boolean;
    readonly wildcardSubscriptionAvailable?: boolean;
  };
}

/** A limit that a CONNACK does not mention does not exist (MQTT 5.0 section 3.2.2.3). */
export function limitsOf(connack: Connack, protocolVersion: ProtocolVersion): BrokerLimits {
  const properties = connack.properties ?? {};
  return {
    sessionPresent: connack.sessionPresent,
    sessionExpirySeconds: protocolVersion === 5
      ? properties.sessionExpiryInterval ?? SESSION_EXPIRY_SECONDS
      : undefined,
    sharedSubscriptions: protocolVersion === 5
      ? properties.sharedSubscriptionAvailable ?? true
      : undefined,
    wildcardSubscriptions: properties.wildcardSubscriptionAvailable ?? true,
  };
}
