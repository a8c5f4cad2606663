/** Valid and invalid certificates of a laboratory, and the reasons in the log for invalid ones. */
import { type Certificate, CertificateAuthority, signItself } from "../support/certificates.ts";
import type { LoggerEnv } from "../support/logger_process.ts";
import { LOGGER_ROLE } from "../support/postgres_database.ts";

export const authority = new CertificateAuthority();
export const stranger = new CertificateAuthority("Another laboratory's CA");
const HOSTS = ["localhost", "127.0.0.1"] as const;

export const GOOD = authority.issue({ hosts: HOSTS });
export const EXPIRED = authority.issue({ hosts: HOSTS, validDays: [-10, -1] });
export const FUTURE = authority.issue({ hosts: HOSTS, validDays: [1, 10] });
export const OTHER_HOST = authority.issue({ hosts: ["db.lab"] });
export const STRANGERS = stranger.issue({ hosts: HOSTS });
export const SIGNED_BY_ITSELF = signItself({ hosts: HOSTS });
export const CLIENT = authority.issue({ name: LOGGER_ROLE });
export const EXPIRED_CLIENT = authority.issue({ name: LOGGER_ROLE, validDays: [-10, -1] });
export const STRANGE_CLIENT = stranger.issue({ name: LOGGER_ROLE });

export const SAYS_EXPIRED = /its certificate has expired/;
export const SAYS_FUTURE =
  /its certificate is (not valid before \d{4}-\d\d-\d\d|not valid yet), or the clock/;
export const SAYS_OTHER_HOST = /its certificate is for another host name/;
export const SAYS_UNKNOWN =
  /its certificate is not signed by a certificate authority that is trusted here/;
export const SAYS_ITSELF = /its certificate is self-signed and not trusted here/;

/** A connection to a server with some certificate. */
export interface Case {
  readonly name: string;
  readonly server: Certificate;
  /** The name or address to connect to; by default an address. */
  readonly host?: string;
  /** Variables in addition to those of `files`. */
  readonly env?: LoggerEnv;
  readonly files?: Readonly<Record<string, string>>;
  /** The reason in the log; undefined if the connection works. */
  readonly says?: RegExp;
}

/** Writes texts to files; returns variables with the paths. */
export function filesEnv(directory: string, texts: Readonly<Record<string, string>>): LoggerEnv {
  return Object.fromEntries(
    Object.entries(texts).map(([name, text]) => {
      const path = `${directory}/${name}.pem`;
      Deno.writeTextFileSync(path, text);
      return [name, path];
    }),
  );
}
