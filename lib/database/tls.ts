/**
 * TLS for the connection to the database: the meaning of the SSL modes, the fallback to a plain
 * connection, and the diagnosis of certificate errors.
 */

import type { Socket } from "node:net";
import type { ConnectionOptions } from "node:tls";
import { systemAuthorities } from "../common/certificates.ts";
import type { DatabaseConfig, SslMode } from "../config/database.ts";
import type { DatabaseError } from "./errors.ts";
import type { Endpoint } from "../common/endpoint.ts";
import { explainTlsProblem } from "../common/tls_diagnosis.ts";

/**
 * The TLS options for an SSL mode, with the meaning of libpq (PostgreSQL manual, section "SSL
 * Support"): `prefer` and `require` encrypt without verifying the certificate, `verify-ca` verifies
 * its issuer, and `verify-full` also its host name. As in libpq, `require` with a file of
 * certificate authorities means `verify-ca`. Returns false for `disable`.
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
 * Whether `prefer` should try again without TLS: TLS failed, or pg_hba.conf does not allow this
 * client to use it.
 */
export function isRefusedForTls({ isTlsFailure, sqlState }: DatabaseError): boolean {
  return isTlsFailure || sqlState === INVALID_AUTHORIZATION;
}

/** No line of pg_hba.conf matches. Lines may depend on whether the connection is encrypted. */
export const INVALID_AUTHORIZATION = "28000";

/** Whether the server answered that it does not support TLS. */
export function hasNoTls(error: unknown): boolean {
  return error instanceof Error && /not support SSL/.test(error.message);
}

/** An error with the TLS problem in words, or `error` itself if TLS is not the problem. */
export async function explainTls(error: unknown, endpoint: Endpoint): Promise<unknown> {
  const words = await explainTlsProblem(error, { ...endpoint, prepare: requestTls });
  return words === undefined ? error : new Error(words, { cause: error });
}

/** PostgreSQL manual, section "SSL Session Encryption". */
const SSL_REQUEST = Uint8Array.of(0, 0, 0, 8, 4, 210, 22, 47);

function requestTls(socket: Socket, start: () => void): void {
  socket.write(SSL_REQUEST);
  socket.once("data", (answer) => {
    if (String(answer) === "S") start();
    else socket.destroy();
  });
}
