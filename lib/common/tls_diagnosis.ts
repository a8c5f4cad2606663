/**
 * The reason why a TLS connection failed, in words.
 *
 * Deno reports that a certificate cannot be verified, but since about version 2.5 not why. So this
 * module fetches the certificate of the server again, over a separate connection.
 */

import { once } from "node:events";
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls, type PeerCertificate, type TLSSocket } from "node:tls";
import type { Endpoint } from "./endpoint.ts";

const EXAMINATION_TIMEOUT_MS = 2_000;

/** Error texts and codes of TLS libraries, and their meaning. The first match counts. */
const WORDS: readonly (readonly [pattern: RegExp, words: string])[] = [
  [/certificate expired|CERT_HAS_EXPIRED/, "its certificate has expired"],
  [
    /not valid yet|CERT_NOT_YET_VALID/,
    "its certificate is not valid yet, or the clock of this host is wrong",
  ],
  [
    /ERR_TLS_CERT_ALTNAME_INVALID|not valid for (any )?name/,
    "its certificate is for another host name",
  ],
  [
    /UnknownIssuer|BadSignature|SELF_SIGNED|UNABLE_TO_(VERIFY|GET_ISSUER)/,
    "its certificate is not signed by a certificate authority that is trusted here",
  ],
  [/CertificateRequired|CERTIFICATE_REQUIRED/, "it requires a client certificate"],
  [
    /ProtocolVersion|PeerIncompatible|peer is incompatible|InsufficientSecurity/,
    "it has no TLS version or cipher in common with the logger",
  ],
  [
    // With TLS 1.2, a server may answer a missing client certificate with this alert (RFC 5246,
    // section 7.4.6).
    /HandshakeFailure|HANDSHAKE_FAILURE/,
    "it has no TLS version or cipher in common with the logger, or requires a client certificate",
  ],
  [
    /fatal alert: (UnknownCA|BadCertificate|DecryptError|CertificateUnknown|CertificateExpired)/,
    "it does not accept the client certificate",
  ],
  [
    /InvalidContentType|WRONG_VERSION_NUMBER|InvalidMessage|not support SSL/,
    "it does not speak TLS at this port",
  ],
];

/** The TLS problem in words, without a full stop; undefined if TLS is not the problem. */
export function describeTlsProblem(error: unknown): string | undefined {
  const text = textOf(error);
  return WORDS.find(([pattern]) => pattern.test(text))?.[1];
}

/** Where and how to fetch the certificate of a server. */
export interface Examination extends Endpoint {
  /**
   * Requests TLS, if TLS does not start at once, as with PostgreSQL's SSLRequest. Must call `start`
   * in the same turn in which the answer is read: Deno 2.6 would otherwise read on and could no
   * longer start TLS.
   */
  readonly prepare?: (socket: Socket, start: () => void) => void;
}

/**
 * As `describeTlsProblem`, with the dates, names or issuer of the certificate if the certificate is
 * the problem. Never rejects.
 */
export async function explainTlsProblem(
  error: unknown,
  examination: Examination,
): Promise<string | undefined> {
  const words = describeTlsProblem(error);
  if (words === undefined || !/certificate (is|has)/.test(words)) return words;
  const certificate = await fetchCertificate(examination).catch(() => undefined);
  if (certificate === undefined) return words;
  return describeDates(certificate, Date.now()) ?? withNames(words, certificate);
}

/** The certificate that the server presents, without verification. */
async function fetchCertificate(examination: Examination): Promise<PeerCertificate> {
  const { host, port } = examination;
  const socket = connectTcp({ host, port });
  // The certificate is all that is needed; later errors of this connection do not matter.
  socket.on("error", () => {});
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error("timeout")), EXAMINATION_TIMEOUT_MS);
  try {
    return await Promise.race([readCertificate(socket, examination), late.promise]);
  } finally {
    clearTimeout(timer);
    socket.destroy();
  }
}

async function readCertificate(
  socket: Socket,
  { host, prepare }: Examination,
): Promise<PeerCertificate> {
  const tls = await new Promise<TLSSocket>((resolve, reject) => {
    const start = (): void => {
      const options = { socket, rejectUnauthorized: false };
      resolve(connectTls({ ...options, ...(isIP(host) === 0 && { servername: host }) }));
    };
    socket.once("connect", () => prepare === undefined ? start() : prepare(socket, start));
    socket.once("close", () => reject(new Error("closed before TLS")));
  });
  tls.on("error", () => {});
  await once(tls, "secureConnect");
  const certificate = tls.getPeerCertificate(true);
  tls.destroy();
  // Empty if the connection has ended in the meantime.
  if (!certificate?.valid_to) throw new Error("no certificate");
  return certificate;
}

/** The problem with the validity period of a certificate; undefined if it is valid now. */
function describeDates(certificate: PeerCertificate, nowMs: number): string | undefined {
  const { valid_from: from, valid_to: to } = certificate;
  if (Date.parse(to) < nowMs) return `its certificate has expired (valid until ${formatDay(to)})`;
  if (Date.parse(from) > nowMs) {
    return `its certificate is not valid before ${
      formatDay(from)
    }, or the clock of this host is wrong`;
  }
  return undefined;
}

function withNames(words: string, { subject, issuer, subjectaltname }: PeerCertificate): string {
  if (/another host/.test(words)) return `${words} (${subjectaltname ?? subject?.CN ?? "none"})`;
  const isSelfSigned = JSON.stringify(subject) === JSON.stringify(issuer);
  return isSelfSigned
    ? "its certificate is self-signed and not trusted here"
    : `${words} (issuer: '${issuer?.CN ?? issuer?.O ?? "unknown"}')`;
}

function formatDay(date: string): string {
  return new Date(date).toISOString().slice(0, 10);
}

function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return `${"code" in error ? String(error.code) : ""} ${error.message}`;
}
