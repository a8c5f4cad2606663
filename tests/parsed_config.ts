/** A configuration in which all is well but for what a test sets. */
import assert from "node:assert/strict";
import { type Config, parseConfig } from "../lib/config.ts";
import { ConfigError, type Environment } from "../lib/settings.ts";

/** The variables that must be set. */
export const MINIMAL = {
  DATABASE_HOST: "db",
  DATABASE_USER: "kraken-user",
  DATABASE_PASSWORD: "very secret",
  MQTT_HOST: "mosquitto",
};

/** What {@linkcode readFile} finds. */
const FILES: Readonly<Record<string, string>> = {
  "/user": "file-user\n",
  "/password": " two words \r\n\n",
  "/blank": "\n",
  "/ca.pem": pem("CERTIFICATE", "CA"),
  "/cert.pem": pem("CERTIFICATE", "CERT"),
  "/key.pem": pem("PRIVATE KEY", "KEY"),
  "/rsa.pem": pem("RSA PRIVATE KEY", "KEY"),
  "/encrypted.pem": pem("ENCRYPTED PRIVATE KEY", "KEY"),
};

/** What looks like a PEM file. */
export function pem(item: string, content: string): string {
  return `-----BEGIN ${item}-----\n${content}\n-----END ${item}-----\n`;
}

/** Reads the files above in place of the file system. */
export function readFile(path: string): string {
  const text = FILES[path];
  if (text === undefined) throw new Error("No such file or directory");
  return text;
}

/** The configuration from the four mandatory variables and what is given here. */
export function parse(env: Environment = {}): Config {
  return parseConfig({ ...MINIMAL, ...env }, readFile);
}

/** The lines that a configuration is refused with. */
export function refusal(env: Environment): string[] {
  try {
    parse(env);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message.split("\n");
  }
  assert.fail(`accepted: ${JSON.stringify(env)}`);
}
