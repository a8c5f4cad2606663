/** The byte stream to a broker: TCP or TLS. */

import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { systemAuthorities } from "../common/certificates.ts";
import type { Certificates } from "../config/config.ts";
import type { Endpoint } from "../common/endpoint.ts";
import { explainTlsProblem } from "../common/tls_diagnosis.ts";

export interface SocketOptions {
  readonly endpoint: Endpoint;
  readonly tls: Certificates | undefined;
  /** Aborted: the attempt is given up. */
  readonly signal: AbortSignal;
  /** Time for the handshakes. */
  readonly timeoutMs: number;
}

/**
 * Connects, over TLS where that is configured; resolves when bytes can flow. Whoever called it
 * closes the socket.
 */
export async function openSocket(options: SocketOptions): Promise<Socket> {
  try {
    return await open(options);
  } catch (error) {
    if (options.tls === undefined) throw error;
    const words = await explainTlsProblem(error, options.endpoint);
    throw words === undefined ? error : new Error(words, { cause: error });
  }
}

function open(options: SocketOptions): Promise<Socket> {
  const { endpoint: { host, port }, tls, signal, timeoutMs } = options;
  const trusted = tls?.ca ?? systemAuthorities();
  const socket = tls === undefined ? connectTcp({ host, port, noDelay: true }) : connectTls({
    host,
    port,
    // An address cannot be a server name (RFC 6066 section 3).
    ...(isIP(host) === 0 && { servername: host }),
    ...(trusted !== undefined && { ca: trusted }),
    ...(tls.cert !== undefined && { cert: tls.cert }),
    ...(tls.key !== undefined && { key: tls.key }),
  });
  return new Promise((resolve, reject) => {
    const finish = (error?: Error): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      socket.removeAllListeners();
      // A socket that nobody listens to any more must not bring the program down.
      socket.on("error", () => {});
      if (error === undefined) return resolve(socket);
      socket.destroy();
      reject(error);
    };
    const onAbort = (): void => finish(new Error("given up"));
    const timer = setTimeout(() => finish(new Error("no answer in time")), timeoutMs);
    socket.once(tls === undefined ? "connect" : "secureConnect", () => finish());
    socket.once("error", finish);
    socket.once("close", () => finish(new Error("the broker closed the connection")));
    signal.addEventListener("abort", onAbort);
    if (signal.aborted) onAbort();
  });
}
