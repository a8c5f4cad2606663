/** How Python converts a timestamp, written apart from `lib/`: the reference of the tests. */

/**
 * Microseconds of `datetime.fromtimestamp(seconds)`: the fraction of the double times 10^6, rounded
 * half to even.
 */
export function pythonMicros(seconds: number): bigint {
  const whole = seconds < 0 ? Math.ceil(seconds) : Math.floor(seconds);
  const micros = (seconds - whole) * 1e6;
  const below = Math.floor(micros);
  const rest = micros - below;
  const isUp = rest > 0.5 || (rest === 0.5 && below % 2 !== 0);
  return BigInt(whole) * 1_000_000n + BigInt(isUp ? below + 1 : below);
}
