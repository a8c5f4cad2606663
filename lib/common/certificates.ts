/**
 * Certificates and keys as PEM texts (RFC 7468): whom the system trusts, and whether what a file
 * holds can be used.
 */

import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";

/** Where systems keep the authorities that they trust: Debian, Fedora, openSUSE, Alpine. */
const SYSTEM_FILES: readonly string[] = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/**
 * The certificate authorities that the system trusts: those in the file that `SSL_CERT_FILE` names,
 * as with OpenSSL, or in the one that the system has. Undefined where there is none: then Deno has
 * a list of its own, which is all that it goes by otherwise. Read anew each time, since authorities
 * are added and withdrawn in the years that the logger runs.
 */
export function systemAuthorities(): string | undefined {
  for (const path of [Deno.env.get("SSL_CERT_FILE") || [], SYSTEM_FILES].flat()) {
    try {
      return Deno.readTextFileSync(path);
    } catch {
      // Not there, or not for this user: as good as none.
    }
  }
  return undefined;
}

const BEGIN_CERTIFICATE = /(?=-----BEGIN (?:\w+ )?CERTIFICATE-----)/;
const PRIVATE_KEY = /-----BEGIN ((?:\w+ )?PRIVATE KEY)-----.*?-----END \1-----/s;

/** What a file with this text is not although it must be; undefined where it has certificates. */
export function ruleForCertificates(pem: string): string | undefined {
  const certificates = splitCertificates(pem);
  if (certificates.length === 0) return "must name a PEM file with certificates";
  const damaged = certificates.findIndex((certificate) => !isReadable(certificate));
  return damaged < 0
    ? undefined
    : `must name a PEM file with valid certificates: certificate ${damaged + 1} of ` +
      `${certificates.length} cannot be parsed`;
}

/** As {@linkcode ruleForCertificates}, for a private key. */
export function ruleForKey(pem: string): string | undefined {
  if (/ENCRYPTED/.test(pem)) return "must name an unencrypted key";
  if (!/-----BEGIN (\w+ )?PRIVATE KEY-----/.test(pem)) {
    return "must name a PEM file with a private key";
  }
  try {
    createPrivateKey(PRIVATE_KEY.exec(pem)?.[0] ?? "");
    return undefined;
  } catch {
    return "must name a PEM file with a valid private key: the key cannot be parsed";
  }
}

/** Whether the key belongs to the first of the certificates; also where that cannot be told. */
export function isKeyOf(key: string, certificates: string): boolean {
  try {
    const own = createPublicKey(createPrivateKey(PRIVATE_KEY.exec(key)?.[0] ?? ""));
    const { publicKey } = new X509Certificate(splitCertificates(certificates)[0] ?? "");
    const format = { type: "spki", format: "pem" } as const;
    return own.export(format) === publicKey.export(format);
  } catch {
    // Of a kind that this version of Deno cannot write down.
    return true;
  }
}

/** Each from its beginning to that of the next, whatever is in between. */
function splitCertificates(pem: string): string[] {
  return pem.split(BEGIN_CERTIFICATE).filter((part) => BEGIN_CERTIFICATE.test(part));
}

function isReadable(certificate: string): boolean {
  try {
    new X509Certificate(certificate);
    return true;
  } catch {
    return false;
  }
}
