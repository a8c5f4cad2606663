/**
 * The cost of the HTTP server: backlogs drained with HTTP off, with HTTP on but no viewers, and
 * with ten viewers. The variants take turns, so that other load on the machine affects all of them.
 */
import { loggerEnv, startLogger } from "../tests/support/logger_process.ts";
import { findFreePort } from "../tests/support/ports.ts";
import { type Drain, measureProcess } from "./drain.ts";
import { median } from "./median.ts";
import { clearTable, createSession, openBroker, publishBacklog, type Stage } from "./stage.ts";
import { formatCount } from "./table.ts";

/** Sensors that publish: the number that the status page is designed for. */
export const HTTP_SENSORS = 2_000;

const ROUNDS = 5;
const VIEWERS = 10;
const VARIANTS = ["off", "on", "viewers"] as const;

type Variant = (typeof VARIANTS)[number];

/** The drains of each variant. */
export type HttpCost = Readonly<Record<Variant, readonly Drain[]>>;

/** Drains as many backlogs of `count` messages of QoS 1 as there are variants, several times. */
export async function measureHttp(stage: Stage, count: number): Promise<HttpCost> {
  const drains: Record<Variant, Drain[]> = { off: [], on: [], viewers: [] };
  for (let round = 1; round <= ROUNDS; round++) {
    const broker = await openBroker(stage);
    for (const clientId of VARIANTS) await createSession(broker, { clientId, qos: 1 });
    await publishBacklog(stage, broker, { qos: 1, count });
    // The order rotates, so that no variant is always the first.
    for (let index = 0; index < VARIANTS.length; index++) {
      const variant = VARIANTS[(index + round) % VARIANTS.length] as Variant;
      stage.progress(`Round ${round} of ${ROUNDS}: HTTP ${variant}`);
      await clearTable(stage);
      const port = findFreePort();
      const env = loggerEnv({ database: stage.database, broker }, {
        MQTT_CLIENT_ID: variant,
        MQTT_QOS: "1",
        ...(variant !== "off" && { HTTP_PORT: String(port) }),
      });
      const over = new AbortController();
      const views: Promise<number>[] = [];
      const drain = await measureProcess({ stage, broker, qos: 1, count }, () => {
        const logger = startLogger(env);
        if (variant === "viewers") {
          for (let viewer = 0; viewer < VIEWERS; viewer++) views.push(view(port, over.signal));
        }
        return logger;
      });
      over.abort();
      const seen = await Promise.all(views);
      if (seen.some((bytes) => bytes === 0)) {
        throw new Error("Measuring: a viewer received no events");
      }
      drains[variant].push(drain);
    }
    await stage.scope.close(broker);
  }
  return drains;
}

/** Reads events until `signal` is aborted, and returns the number of received bytes. */
async function view(port: number, signal: AbortSignal): Promise<number> {
  let bytes = 0;
  while (!signal.aborted) {
    try {
      const response = await fetch(`http://127.0.0.1:${port}/api/events`, { signal });
      for await (const chunk of response.body ?? []) bytes += chunk.length;
    } catch {
      // The logger does not listen yet or any more, or `signal` was aborted.
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  return bytes;
}

/** Median, minimum and maximum, and the ratio of the median to that without HTTP. */
export function formatHttpCost(cost: HttpCost): string {
  const rates = (variant: Variant): number[] =>
    cost[variant].map(({ messagesPerSecond }) => messagesPerSecond);
  const seconds = (variant: Variant): number[] => cost[variant].map(({ cpu }) => cpu.program);
  const line = (variant: Variant, words: string): string => {
    const columns = [
      describeSpread(rates(variant), (value) => formatCount(Math.round(value))),
      `${(median(rates(variant)) / median(rates("off"))).toFixed(2)} ×`,
      describeSpread(seconds(variant), (value) => value.toFixed(2)),
      `${(median(seconds(variant)) / median(seconds("off"))).toFixed(2)} ×`,
    ];
    const [rate = "", rateShare = "", time = "", timeShare = ""] = columns;
    return `${words.padEnd(18)} ${rate.padEnd(26)} ${rateShare.padEnd(8)} ` +
      `${time.padEnd(20)} ${timeShare}\n`;
  };
  return "QoS 1, 2,000 sensors: median (minimum – maximum)\n" +
    `${"HTTP".padEnd(18)} ${"rows/s".padEnd(35)} CPU time, s\n` +
    line("off", "off") + line("on", "on, no viewers") + line("viewers", "ten viewers");
}

function describeSpread(
  values: readonly number[],
  format: (value: number) => string,
): string {
  const ends = [Math.min(...values), Math.max(...values)].map(format);
  return `${format(median(values))} (${ends.join(" – ")})`;
}
