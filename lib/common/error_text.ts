/** The text of an error, for a log line. */

import { describeTlsProblem } from "./tls_diagnosis.ts";

const ERRNO_WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED:
    "connection refused (no server listens at this address, or a firewall rejects the connection)",
  ECONNRESET: "the connection was reset by the peer",
  ECONNABORTED: "the connection was aborted",
  EPIPE: "the connection was closed by the peer",
  ETIMEDOUT: "no answer in time",
  // Deno 2.6 has these two codes only for a failed write: EBADF for EPIPE, UNKNOWN for all others.
  UNKNOWN: "the connection was closed",
  EBADF: "the connection was closed",
  EHOSTUNREACH: "no route to the host",
  ENETUNREACH: "no route to the network",
  ENOTFOUND: "the host name is unknown",
  EAI_AGAIN: "the host name cannot be resolved at the moment",
};

/** The reason of a failure in words, without a full stop. Accepts any thrown value. */
export function describeError(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) {
    return [...new Set(error.errors.map(describeError))].join("; ");
  }
  if (!(error instanceof Error)) return String(error);
  const code = "code" in error ? String(error.code) : "";
  return ERRNO_WORDS[code] ?? describeTlsProblem(error) ??
    (error.message.replace(/\.$/, "") || code || error.name);
}
