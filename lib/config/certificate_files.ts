/** The settings that name PEM files, for broker and database. */

import { isKeyOf, ruleForCertificates, ruleForKey } from "../common/certificates.ts";
import type { Settings } from "./settings.ts";

/** PEM texts with which TLS authenticates both sides. */
export interface Certificates {
  /** The trusted certificate authorities; undefined: those of the system. */
  readonly ca: string | undefined;
  /** A client certificate and its private key; both are set or neither. */
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

/** Reads the PEM files whose variables are set. */
export function parseCertificates(settings: Settings, prefix: "DATABASE" | "MQTT"): Certificates {
  const names = { ca: `${prefix}_CA_FILE`, cert: `${prefix}_CERT_FILE`, key: `${prefix}_KEY_FILE` };
  const isSet = (name: string): boolean => settings.text(name) !== undefined;
  if (isSet(names.cert) !== isSet(names.key)) {
    const missing = isSet(names.cert) ? names.key : names.cert;
    settings.problem(
      missing,
      `must be set: a client certificate requires ${names.cert} and ${names.key}`,
    );
  }
  const ca = settings.file(names.ca, ruleForCertificates);
  const cert = settings.file(names.cert, ruleForCertificates);
  const fits = (text: string): boolean =>
    cert === undefined || settings.isRefused(names.cert) || isKeyOf(text, cert);
  const mismatch = `must name the key that belongs to the certificate in ${names.cert}`;
  const key = settings.file(
    names.key,
    (text) => ruleForKey(text) ?? (fits(text) ? undefined : mismatch),
  );
  return { ca, cert, key };
}
