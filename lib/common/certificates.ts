/**
 * Certificates and keys as PEM texts (RFC 7468): the certificate authorities of the system, and
 * checks of the files that the configuration names.
 */

import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";

/** The files with the trusted certificate authorities on Debian, Fedora, openSUSE and Alpine. */
const SYSTEM_FILES: readonly string[] = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/**
 * The certificate authorities that the system trusts, as PEM text: from the file that
 * `SSL_CERT_FILE` names, as with OpenSSL, or else from the system's file. Undefined if no file can
 * be read; Deno then uses its built-in list, which it would always use by default. The file is read
 * at every call, because authorities are added and revoked while the logger runs.
 */
export function systemAuthorities(): string | undefined {
  for (const path of [Deno.env.get("SSL_CERT_FILE") || [], SYSTEM_FILES].flat()) {
    try {
      return Deno.readTextFileSync(path);
    } catch {
      // The file does not exist, or this user may not read it: try the next one.
    }
  }
  return undefined;
}

const BEGIN_CERTIFICATE = /(?=-----BEGIN (?:\w+ )?CERTIFICATE-----)/;
const PRIVATE_KEY = /-----BEGIN ((?:\w+ )?PRIVATE KEY)-----.*?-----END \1-----/s;

/** The rule that the text of a certificate file violates; undefined if it is valid. */
export function ruleForCertificates(pem: string): string | undefined {
  const certificates = splitCertificates(pem);
  if (certificates.length === 0) return "must name a PEM file with certificates";
  const damaged = certificates.findIndex((certificate) => !isReadable(certificate));
  return damaged < 0
    ? undefined
    : `must name a PEM file with valid certificates: certificate ${damaged + 1} of ` +
      `${certificates.length} cannot be parsed`;
}

/** The rule that the text of a private key file violates; undefined if it is valid. */
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

/** Whether the key belongs to the first certificate. True if it cannot be determined. */
export function isKeyOf(key: string, certificates: string): boolean {
  try {
    const own = createPublicKey(createPrivateKey(PRIVATE_KEY.exec(key)?.[0] ?? ""));
    const { publicKey } = new X509Certificate(splitCertificates(certificates)[0] ?? "");
    const format = { type: "spki", format: "pem" } as const;
    return own.export(format) === publicKey.export(format);
  } catch {
    // This version of Deno cannot export keys of this type. The handshake will show a mismatch.
    return true;
  }
}

/** The certificates, each with the text up to the next one: files may hold comments in between. */
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
