/** A valid configuration, except for the variables that a test sets. */
import assert from "node:assert/strict";
import { type Config, parseConfig } from "../../lib/config/config.ts";
import { ConfigError, type Environment } from "../../lib/config/settings.ts";
import { CertificateAuthority } from "./certificates.ts";

/** The variables that must be set. */
export const MINIMAL = {
  DATABASE_HOST: "db",
  DATABASE_USER: "kraken-user",
  DATABASE_PASSWORD: "very secret",
  MQTT_HOST: "mosquitto",
};

const authority = new CertificateAuthority();
const client = authority.issue({ name: "client" });

/** The files that {@linkcode readFile} reads. */
const FILES: Readonly<Record<string, string>> = {
  "/user": "file-user\n",
  "/password": " two words \r\n\n",
  "/blank": "\n",
  "/ca.pem": authority.cert,
  "/half-of-ca.pem": authority.cert.slice(0, authority.cert.length / 2),
  "/cert.pem": client.cert,
  "/key.pem": client.key,
  "/half-of-key.pem": client.key.slice(0, client.key.length / 2),
  "/key-of-another.pem": authority.issue({ name: "another" }).key,
  "/encrypted.pem": client.key.replaceAll("RSA PRIVATE", "ENCRYPTED PRIVATE"),
};

/** Reads from `FILES` instead of the file system. */
export function readFile(path: string): string {
  const text = FILES[path];
  if (text === undefined) throw new Error("No such file or directory");
  return text;
}

/** The configuration from the four mandatory variables and `env`. */
export function parse(env: Environment = {}): Config {
  return parseConfig({ ...MINIMAL, ...env }, readFile);
}

/** The lines of the error for an invalid configuration. */
export function refusal(env: Environment): string[] {
  try {
    parse(env);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message.split("\n");
  }
  assert.fail(`accepted: ${JSON.stringify(env)}`);
}
