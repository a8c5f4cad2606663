/** HTTP requests of the tests to a logger. */
import assert from "node:assert/strict";
import parsePrometheus from "parse-prometheus-text-format";
import type { Status } from "../../lib/monitoring/status.ts";
import type { LoggerEnv, LoggerProcess } from "./logger_process.ts";
import { findFreePort } from "./ports.ts";

/** The address of the logger's HTTP server, once it listens. */
export async function addressOf(logger: LoggerProcess): Promise<string> {
  const line = await logger.waitForLine("status page at ");
  return /http:\/\/[^/]*/.exec(line)?.[0] ?? "";
}

/** The environment, with HTTP at a free port. */
export function withHttp(env: LoggerEnv): LoggerEnv {
  return { ...env, HTTP_PORT: String(findFreePort()) };
}

/** The body of a response, whose status must be 200. */
export async function getText(url: string): Promise<string> {
  const response = await fetch(url);
  assert.equal(response.status, 200, url);
  return await response.text();
}

export async function getStatus(address: string): Promise<Status> {
  return JSON.parse(await getText(`${address}/api/status`)) as Status;
}

export async function statusCode(url: string, init: RequestInit = {}): Promise<number> {
  const response = await fetch(url, init);
  await response.body?.cancel();
  return response.status;
}

/** The metrics by name and labels: `name{a="b"}`. */
export async function getMetrics(address: string): Promise<Map<string, number>> {
  const families = parsePrometheus(await getText(`${address}/metrics`));
  const values = new Map<string, number>();
  for (const { name, type, metrics } of families) {
    for (const { labels = {}, value, buckets = {}, count, sum } of metrics) {
      if (type === "HISTOGRAM") {
        for (const [le, number] of Object.entries(buckets)) {
          values.set(`${name}_bucket ${le}`, Number(number));
        }
        values.set(`${name}_count`, Number(count));
        values.set(`${name}_sum`, Number(sum));
      } else {
        const words = Object.values(labels).map(String);
        values.set([name, ...words].join(" "), Number(value));
      }
    }
  }
  return values;
}
