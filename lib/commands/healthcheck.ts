/** `kraken-logger healthcheck`: asks a running logger how it is, for containers without other programs. */

import { get } from "node:http";
import { text } from "node:stream/consumers";
import { describeError } from "../common/error_text.ts";
import type { HttpConfig } from "../config/config.ts";
import { describeEndpoint } from "../common/endpoint.ts";

const TIMEOUT_MS = 5_000;

/** Addresses to listen at that are none to connect to. */
const LOOPBACK: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1" };

/** Prints in a line how the logger is, and returns whether it is well. */
export async function healthcheck(
  { host, port }: HttpConfig,
  print: (text: string) => void,
): Promise<boolean> {
  const endpoint = { host: LOOPBACK[host] ?? host, port };
  try {
    const { status, body } = await ask(endpoint);
    print(body);
    return status === 200;
  } catch (error) {
    print(`No answer from the logger at ${describeEndpoint(endpoint)}: ${describeError(error)}.\n`);
    return false;
  }
}

function ask({ host, port }: HttpConfig): Promise<{ status: number | undefined; body: string }> {
  return new Promise((resolve, reject) => {
    const request = get({ host, port, path: "/healthz", agent: false }, (response) => {
      text(response).then((body) => resolve({ status: response.statusCode, body }), reject);
    });
    request.on("error", reject);
    const timer = setTimeout(() => request.destroy(new Error("no answer in time")), TIMEOUT_MS);
    request.on("close", () => clearTimeout(timer));
  });
}
