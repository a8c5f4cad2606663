/** Certificate authorities, and valid and invalid certificates, for the tests. */
import { isIP } from "node:net";
// @ts-types="@types/node-forge"
import forge from "node-forge";

/** A certificate with its key, both as PEM texts. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** The content of a certificate. */
export interface CertificateOptions {
  /** Common name; the first host by default. */
  readonly name?: string;
  /** Names and addresses that it is valid for; none for a client certificate. */
  readonly hosts?: readonly string[];
  /** In days from now; by default from yesterday to a year from now. */
  readonly validDays?: readonly [from: number, to: number];
}

const DAY_MS = 24 * 3600 * 1000;

let serialNumber = 1;

/** Signs certificates. Two authorities of the same name are different ones. */
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

  /** The certificate of the authority, for programs that must trust it; a PEM text. */
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

/** Creates a self-signed certificate of a server. */
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
  // The first byte must not make the number negative.
  certificate.serialNumber = `01${(serialNumber++).toString(16).padStart(6, "0")}`;
  certificate.validity.notBefore = new Date(Date.now() + from * DAY_MS);
  certificate.validity.notAfter = new Date(Date.now() + to * DAY_MS);
  certificate.setSubject([{ name: "commonName", value: name }]);
  return certificate;
}

/** The numbers of the kinds of names are those of RFC 5280. */
function toAltName(host: string): { type: number; ip?: string; value?: string } {
  return isIP(host) === 0 ? { type: 2, value: host } : { type: 7, ip: host };
}
