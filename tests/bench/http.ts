/**
 * What it costs to tell over HTTP: backlogs drained with HTTP off, with nobody looking, and with ten
 * viewers, in turn, so that whatever else the machine does meets all of them.
 */
import { loggerEnv, startLogger } from "../services/logger_process.ts";
import { findFreePort } from "../services/ports.ts";
import { type Drain, measureProcess } from "./drain.ts";
import { clearTable, createSession, openBroker, publishBacklog, type Stage } from "./stage.ts";

/** Sensors that publish: the number that the status page is to be fast with. */
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
    // None of them is always the first.
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
      if (seen.some((bytes) => bytes === 0)) throw new Error("Measuring: a viewer saw nothing");
      drains[variant].push(drain);
    }
    await stage.scope.close(broker);
  }
  return drains;
}

/** Reads events until the end; returns how many bytes there were. */
async function view(port: number, signal: AbortSignal): Promise<number> {
  let bytes = 0;
  while (!signal.aborted) {
    try {
      const response = await fetch(`http://127.0.0.1:${port}/api/events`, { signal });
      for await (const chunk of response.body ?? []) bytes += chunk.length;
    } catch {
      // The logger is not there yet, or not any more, or this viewer is to end.
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  return bytes;
}

/** The medians, as shares of what there is without HTTP. */
export function formatHttpCost(cost: HttpCost): string {
  const rate = (variant: Variant): number =>
    median(cost[variant].map((drain) => drain.messagesPerSecond));
  const seconds = (variant: Variant): number => median(cost[variant].map(({ cpu }) => cpu.program));
  const line = (variant: Variant, words: string): string =>
    `${words.padEnd(34)} ${Math.round(rate(variant)).toLocaleString("en").padStart(9)}/s ` +
    `${(rate(variant) / rate("off")).toFixed(2).padStart(6)} × ` +
    `${seconds(variant).toFixed(2).padStart(8)} s ` +
    `${(seconds(variant) / seconds("off")).toFixed(2).padStart(6)} ×\n`;
  return "HTTP, QoS 1, 2,000 sensors; medians      rows          processor time\n" +
    line("off", "off") + line("on", "on, nobody looks") + line("viewers", "ten viewers");
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN;
}
