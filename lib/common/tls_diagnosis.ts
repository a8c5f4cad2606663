/**
 * What is wrong with an encrypted connection, in words.
 *
 * Deno tells of a certificate that cannot be verified, but from version 2.5 or so on not why. So the
 * server is asked for its certificate once more, over a connection that is used for nothing else.
 */

import { once } from "node:events";
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls, type PeerCertificate } from "node:tls";
import type { Endpoint } from "./endpoint.ts";

const EXAMINATION_TIMEOUT_MS = 2_000;

/** What libraries say, and what it means. The first that matches counts. */
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
    // With TLS 1.2, this may be the answer to the lack of a client certificate (RFC 5246 7.4.6).
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

/** Says in words what is wrong with TLS, without a full stop; undefined where it is not TLS. */
export function describeTlsProblem(error: unknown): string | undefined {
  const text = textOf(error);
  return WORDS.find(([pattern]) => pattern.test(text))?.[1];
}

/** Where and how to ask a server for its certificate. */
export interface Examination extends Endpoint {
  /** Makes a connection ready for TLS, where that does not begin at once. */
  readonly prepare?: (socket: Socket) => Promise<void>;
}

/**
 * As `describeTlsProblem`, with what the certificate says where it is to blame. Never rejects.
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

/** The certificate that the server shows, whatever it is worth. */
async function fetchCertificate(examination: Examination): Promise<PeerCertificate> {
  const { host, port } = examination;
  const socket = connectTcp({ host, port });
  // What becomes of it in the end is of no interest.
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
  await once(socket, "connect");
  await prepare?.(socket);
  const tls = connectTls({
    socket,
    rejectUnauthorized: false,
    ...(isIP(host) === 0 && { servername: host }),
  });
  tls.on("error", () => {});
  await once(tls, "secureConnect");
  const certificate = tls.getPeerCertificate(true);
  tls.destroy();
  // Some versions of Deno make one up, without dates.
  if (!certificate?.valid_to) throw new Error("no certificate");
  return certificate;
}

/** What is wrong with the dates of a certificate; undefined if nothing is. */
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
