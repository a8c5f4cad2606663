/** Opens the connection to a broker: TCP, or TLS over TCP. */

import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls, TLSSocket } from "node:tls";
import { systemAuthorities } from "../common/certificates.ts";
import type { Endpoint } from "../common/endpoint.ts";
import { explainTlsProblem } from "../common/tls_diagnosis.ts";
import type { Certificates } from "../config/certificate_files.ts";

/** Where and how to connect. */
export interface SocketOptions {
  readonly endpoint: Endpoint;
  /** Undefined: TCP without TLS. */
  readonly tls: Certificates | undefined;
  /** Aborts the attempt; it has no effect on an open socket. */
  readonly signal: AbortSignal;
  /** Maximum time for the TCP and TLS handshakes together. */
  readonly timeoutMs: number;
}

/**
 * Connects, and completes the TLS handshake if TLS is configured. The caller owns the socket and
 * closes it.
 *
 * @throws {Error} when the connection fails, the time is over or `signal` is aborted. TLS problems
 * are explained in the message.
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
      // An "error" event without a listener would end the process.
      socket.on("error", () => {});
      if (error === undefined) return resolve(socket);
      socket.destroy();
      reject(error);
    };
    const onAbort = (): void => finish(new Error("given up"));
    const timer = setTimeout(() => finish(new Error("no answer in time")), timeoutMs);
    socket.once(tls === undefined ? "connect" : "secureConnect", () => {
      // Deno 2.6 reports a failed handshake as done, without a certificate; its error follows.
      if (socket instanceof TLSSocket && !socket.getPeerCertificate()) return;
      finish();
    });
    socket.once("error", finish);
    socket.once("close", () => finish(new Error("the broker closed the connection")));
    signal.addEventListener("abort", onAbort);
    if (signal.aborted) onAbort();
  });
}
