/** Certificate authorities and certificates for the tests, good ones and bad ones. */
import { isIP } from "node:net";
// @ts-types="@types/node-forge"
import forge from "node-forge";

/** A certificate with its key, both as PEM texts. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** What a certificate says. */
export interface CertificateOptions {
  /** Common name; the first host by default. */
  readonly name?: string;
  /** Names and addresses that it is valid for; none for that of a client. */
  readonly hosts?: readonly string[];
  /** In days from now; from yesterday to in a year by default. */
  readonly validDays?: readonly [from: number, to: number];
}

const DAY_MS = 24 * 3600 * 1000;

let serialNumber = 1;

/** One that signs certificates. Certificate authorities of the same name are different ones. */
export class CertificateAuthority {
  readonly #keys = forge.pki.rsa.generateKeyPair(2048);
  readonly #certificate: forge.pki.Certificate;

  constructor(name = "Laboratory CA") {
    this.#certificate = fill({ name, keys: this.#keys, validDays: [-1, 365] });
    this.#certificate.setIssuer(this.#certificate.subject.attributes);
    this.#certificate.setExtensions([
      { name: "basicConstraints", cA: true, critical: true },
      { name: "keyUsage", keyCertSign: true, cRLSign: true, critical: true },
    ]);
    this.#certificate.sign(this.#keys.privateKey, forge.md.sha256.create());
  }

  /** Its own certificate, for whoever is to trust it; a PEM text. */
  get cert(): string {
    return forge.pki.certificateToPem(this.#certificate);
  }

  issue(
    { hosts = [], name = hosts[0] ?? "client", validDays = [-1, 365] }: CertificateOptions,
  ): Certificate {
    const keys = forge.pki.rsa.generateKeyPair(2048);
    const certificate = fill({ name, keys, validDays });
    certificate.setIssuer(this.#certificate.subject.attributes);
    certificate.setExtensions([
      { name: "basicConstraints", cA: false },
      { name: "keyUsage", digitalSignature: true, keyEncipherment: true },
      { name: "extKeyUsage", serverAuth: true, clientAuth: true },
      ...(hosts.length === 0 ? [] : [{ name: "subjectAltName", altNames: hosts.map(toAltName) }]),
    ]);
    certificate.sign(this.#keys.privateKey, forge.md.sha256.create());
    return {
      cert: forge.pki.certificateToPem(certificate),
      key: forge.pki.privateKeyToPem(keys.privateKey),
    };
  }
}

/** A server's certificate that no authority has signed. */
export function signItself(
  { hosts }: { readonly hosts: readonly [string, ...string[]] },
): Certificate {
  const keys = forge.pki.rsa.generateKeyPair(2048);
  const certificate = fill({ name: hosts[0], keys, validDays: [-1, 365] });
  certificate.setIssuer(certificate.subject.attributes);
  certificate.setExtensions([{ name: "subjectAltName", altNames: hosts.map(toAltName) }]);
  certificate.sign(keys.privateKey, forge.md.sha256.create());
  return {
    cert: forge.pki.certificateToPem(certificate),
    key: forge.pki.privateKeyToPem(keys.privateKey),
  };
}

function fill({ name, keys, validDays: [from, to] }: {
  readonly name: string;
  readonly keys: forge.pki.rsa.KeyPair;
  readonly validDays: readonly [number, number];
}): forge.pki.Certificate {
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = keys.publicKey;
  // The first byte must not make it negative.
  certificate.serialNumber = `01${(serialNumber++).toString(16).padStart(6, "0")}`;
  certificate.validity.notBefore = new Date(Date.now() + from * DAY_MS);
  certificate.validity.notAfter = new Date(Date.now() + to * DAY_MS);
  certificate.setSubject([{ name: "commonName", value: name }]);
  return certificate;
}

/** As RFC 5280 numbers the kinds of names. */
function toAltName(host: string): { type: number; ip?: string; value?: string } {
  return isIP(host) === 0 ? { type: 2, value: host } : { type: 7, ip: host };
}
