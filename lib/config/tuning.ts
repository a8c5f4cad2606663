/**
 * Timings and limits that tests shorten, so that they need not wait as long as operators do. They
 * are no settings: the defaults are part of the program's design.
 */

/** All durations are in ms, unless the name says otherwise. */
export interface Tuning {
  /** The longest delay between two attempts to connect to a broker or database. */
  readonly maxReconnectDelayMs: number;
  /** Time for the TCP and TLS handshakes with a broker, and then for its CONNACK. */
  readonly mqttConnectTimeoutMs: number;
  /** Keepalive that is announced to the broker (MQTT 5.0 section 3.1.2.10). */
  readonly mqttKeepaliveSeconds: number;
  /** How long a connection must last after a session takeover before the outage is over. */
  readonly takeoverDoubtMs: number;
  /** Time for the connection to the database and its login. */
  readonly databaseConnectTimeoutMs: number;
  /** Time after which the server cancels a statement. */
  readonly statementTimeoutMs: number;
  /** Time after which the connection is closed because the server does not answer at all. */
  readonly queryTimeoutMs: number;
  /** Time after which a message is tried again that the database did not store. */
  readonly postponedRetryMs: number;
  /** Messages of QoS 0 that are kept in memory at most: the broker does not limit them. */
  readonly maxQos0Messages: number;
  /** A spool that is empty again within this time is not logged. */
  readonly spoolQuietMs: number;
  /** Time until the first log line about a spool that is being drained; doubles with each line. */
  readonly spoolReportMs: number;
  /** Time between two attempts to replace a damaged spool file. */
  readonly rescueRetryMs: number;
  /** Time without progress after which the logger reports itself as stuck. */
  readonly stuckAfterMs: number;
  /** Interval in which ten lines of one kind are logged; the others are counted. */
  readonly floodIntervalMs: number;
  /** Time between two lines with the totals since start. */
  readonly totalsIntervalMs: number;
  /** Time until `report` shows its progress, and between the first two lines of it. */
  readonly reportQuietMs: number;
}

export const DEFAULT_TUNING: Tuning = Object.freeze({
  maxReconnectDelayMs: 15_000,
  mqttConnectTimeoutMs: 10_000,
  mqttKeepaliveSeconds: 30,
  takeoverDoubtMs: 120_000,
  databaseConnectTimeoutMs: 10_000,
  statementTimeoutMs: 30_000,
  queryTimeoutMs: 35_000,
  postponedRetryMs: 10_000,
  maxQos0Messages: 100_000,
  spoolQuietMs: 5_000,
  spoolReportMs: 10_000,
  rescueRetryMs: 60_000,
  // Longer than any timeout of a statement or of an attempt to connect to the database.
  stuckAfterMs: 90_000,
  floodIntervalMs: 60_000,
  totalsIntervalMs: 3_600_000,
  reportQuietMs: 5_000,
});

/** The variable that replaces some of the defaults, as a JSON object; for tests only. */
export const TUNING_VARIABLE = "KRAKEN_TEST_TUNING";

/**
 * The defaults, with those members replaced that the JSON object in `text` has. Returns the rule
 * that `text` breaks, if it breaks one.
 */
export function parseTuning(text: string): Tuning | string {
  const rule = `must be a JSON object with numbers, of ${Object.keys(DEFAULT_TUNING).join(", ")}`;
  let replaced: unknown;
  try {
    replaced = JSON.parse(text);
  } catch {
    return rule;
  }
  if (typeof replaced !== "object" || replaced === null || Array.isArray(replaced)) return rule;
  const isValid = Object.entries(replaced).every(([name, value]) =>
    Object.hasOwn(DEFAULT_TUNING, name) && typeof value === "number" && value >= 0
  );
  return isValid ? { ...DEFAULT_TUNING, ...replaced } : rule;
}
