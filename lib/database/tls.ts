/**
 * Encryption of the connection to the database: what the modes of `sslmode` ask for, when to do
 * without, and what is wrong with the server's certificate.
 */

import { once } from "node:events";
import type { Socket } from "node:net";
import type { ConnectionOptions } from "node:tls";
import { systemAuthorities } from "../common/certificates.ts";
import type { DatabaseConfig, SslMode } from "../config/config.ts";
import type { DatabaseError } from "./errors.ts";
import type { Endpoint } from "../common/endpoint.ts";
import { explainTlsProblem } from "../common/tls_diagnosis.ts";

/**
 * libpq's meaning of the modes (PostgreSQL manual, section "SSL Support"): `prefer` and `require`
 * encrypt without checking the certificate, `verify-ca` checks who signed it, `verify-full` also
 * for which host. As there, `require` with a file of certificate authorities is `verify-ca`.
 * Returns false where nothing is encrypted.
 */
export function tlsOptions(
  mode: SslMode,
  { endpoint: { host }, ca, cert, key }: DatabaseConfig,
): ConnectionOptions | false {
  if (mode === "disable") return false;
  const client = { ...(cert !== undefined && { cert }), ...(key !== undefined && { key }) };
  if (mode === "prefer" || (mode === "require" && ca === undefined)) {
    return { rejectUnauthorized: false, ...client };
  }
  const trusted = ca ?? systemAuthorities();
  return {
    rejectUnauthorized: true,
    ...(trusted !== undefined && { ca: trusted }),
    ...client,
    ...(mode === "verify-full" ? { host } : { checkServerIdentity: () => undefined }),
  };
}

/**
 * Whether it may work without TLS, as `prefer` has it: there was no TLS to be had, or the server
 * does not want it of this client.
 */
export function isRefusedForTls({ isTlsFailure, sqlState }: DatabaseError): boolean {
  return isTlsFailure || sqlState === INVALID_AUTHORIZATION;
}

/** No line of pg_hba.conf fits, which goes by whether the connection is encrypted. */
export const INVALID_AUTHORIZATION = "28000";

/** Whether the server says that it has no TLS. */
export function hasNoTls(error: unknown): boolean {
  return error instanceof Error && /not support SSL/.test(error.message);
}

/** Finds out what is wrong with the certificate of the server, if that is why it failed. */
export async function explainTls(error: unknown, endpoint: Endpoint): Promise<unknown> {
  const words = await explainTlsProblem(error, { ...endpoint, prepare: requestTls });
  return words === undefined ? error : new Error(words, { cause: error });
}

/** PostgreSQL manual, section "SSL Session Encryption". */
const SSL_REQUEST = Uint8Array.of(0, 0, 0, 8, 4, 210, 22, 47);

async function requestTls(socket: Socket): Promise<void> {
  socket.write(SSL_REQUEST);
  const [answer] = await once(socket, "data");
  if (String(answer) !== "S") throw new Error("no TLS");
}
