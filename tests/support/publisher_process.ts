/**
 * A publisher in a separate process, for large numbers of messages. The test process itself is
 * slower; with leak tracing (`--trace-leaks`) about eight times.
 */
import { fileURLToPath } from "node:url";
import { runSuccessfully } from "./process.ts";
import { type BrokerAddress, type PublishOptions, publishReadings } from "./publisher.ts";
import type { Reading } from "./readings.ts";

interface Job {
  readonly broker: BrokerAddress;
  readonly options: PublishOptions;
  readonly readings: readonly (Omit<Reading, "timeUs"> & { readonly timeUs: string })[];
}

/**
 * Publishes readings as {@linkcode publishReadings} does, in another process, and resolves when the
 * broker has acknowledged all of them.
 *
 * @throws {Error} with the output of that process when it fails.
 */
export async function publishReadingsFast(
  broker: BrokerAddress,
  readings: readonly Reading[],
  options: Omit<PublishOptions, "signal"> = {},
): Promise<number> {
  const path = Deno.makeTempFileSync({ prefix: "kraken-test-" });
  try {
    const { host, port, receiveMaximum, usualQos } = broker;
    // JSON leaves undefined members out.
    const address = { host, port, receiveMaximum, usualQos };
    // JSON has no bigint, and no NaN, infinities or sign of zero, which readings need.
    const job = { broker: address, options, readings };
    Deno.writeTextFileSync(path, JSON.stringify(job, writeNumber));
    const config = fileURLToPath(new URL("../deno.json", import.meta.url));
    const args = ["run", "--allow-all", "--quiet", "--no-check", "--config", config];
    await runSuccessfully(Deno.execPath(), {
      args: [...args, fileURLToPath(import.meta.url), path],
    });
    return readings.length;
  } finally {
    Deno.removeSync(path);
  }
}

function writeNumber(key: string, value: unknown): unknown {
  return key === "timeUs" || key === "value"
    ? (Object.is(value, -0) ? "-0" : String(value))
    : value;
}

async function publishJob(path: string): Promise<void> {
  const { broker, options, readings } = JSON.parse(Deno.readTextFileSync(path)) as Job;
  const converted = readings.map((reading) => ({
    ...reading,
    timeUs: BigInt(reading.timeUs),
    value: Number(reading.value),
  }));
  await publishReadings(broker, converted, options);
}

if (import.meta.main) {
  await publishJob(Deno.args[0] ?? "");
}
