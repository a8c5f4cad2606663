/**
 * `kraken-logger healthcheck`: queries `/healthz` of a running logger. For containers whose image
 * has no other HTTP client.
 */

import { get } from "node:http";
import { text } from "node:stream/consumers";
import { describeError } from "../common/error_text.ts";
import type { HttpConfig } from "../config/config.ts";
import { describeEndpoint } from "../common/endpoint.ts";

const TIMEOUT_MS = 5_000;

/** Wildcard addresses, which one can listen on but not connect to, and what to connect to instead. */
const LOOPBACK: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1" };

/** Prints the answer of `/healthz` in one line. Returns whether the logger is healthy. */
export async function healthcheck(
  { host, port }: HttpConfig,
  print: (text: string) => void,
): Promise<boolean> {
  const endpoint = { host: LOOPBACK[host] ?? host, port };
  try {
    const { status, body } = await query(endpoint);
    print(body);
    return status === 200;
  } catch (error) {
    print(`No answer from the logger at ${describeEndpoint(endpoint)}: ${describeError(error)}.\n`);
    return false;
  }
}

function query({ host, port }: HttpConfig): Promise<{ status: number | undefined; body: string }> {
  return new Promise((resolve, reject) => {
    const request = get({ host, port, path: "/healthz", agent: false }, (response) => {
      text(response).then((body) => resolve({ status: response.statusCode, body }), reject);
    });
    request.on("error", reject);
    const timer = setTimeout(
      () => request.destroy(new Error(`no answer within ${TIMEOUT_MS / 1000} s`)),
      TIMEOUT_MS,
    );
    request.on("close", () => clearTimeout(timer));
  });
}
