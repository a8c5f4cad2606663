/**
 * Reads settings one by one from the environment, and collects their problems.
 */

import { isIPv6 } from "node:net";
import type { Endpoint } from "../common/endpoint.ts";
import { DEFAULT_TUNING, parseTuning, type Tuning, TUNING_VARIABLE } from "./tuning.ts";

/** One problem of the configuration. `received` is missing for secrets and for missing values. */
export interface ConfigProblem {
  readonly variable: string;
  readonly rule: string;
  readonly received?: string;
}

/** Thrown by `parseConfig` with all problems. The message has one line for each problem and hint. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly ConfigProblem[], hints: readonly string[] = []) {
    super([...problems.map(describeProblem), ...hints].join("\n"));
    this.problems = problems;
  }
}

function describeProblem({ variable, rule, received }: ConfigProblem): string {
  return `${variable}: ${rule}${received === undefined ? "" : `, received ${quote(received)}`}`;
}

/**
 * Quotes a received text: of bounded length, on one line, and without the user name and password that
 * a URL or a connection string may contain.
 */
export function quote(text: string): string {
  const shown = text
    .replace(/\/\/.*@/gs, "//…@")
    .replace(/(password=).*/gis, "$1…")
    .replace(CONTROL_CHARACTER, " ");
  return `'${shown.length > 200 ? `${shown.slice(0, 200)}…` : shown}'`;
}

/** Whether the text of a host setting may contain, against the rules, a user name and a password. */
export function mayHoldLogin(text: string): boolean {
  return text.includes("//") || text.includes("@");
}

// deno-lint-ignore no-control-regex
const CONTROL_CHARACTER = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;

/** Environment variables by name. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Returns the text of a file, or throws an Error with the system's reason. */
export type ReadFile = (path: string) => string;

/** Settings that are never printed, and for which `NAME_FILE` may name a file with the value. */
export const SECRETS = [
  "DATABASE_USER",
  "DATABASE_PASSWORD",
  "MQTT_CLIENT_USER",
  "MQTT_CLIENT_PASSWORD",
] as const;

type Secret = typeof SECRETS[number];

/** A name as DNS and hosts(5) have them; IPv4 addresses have this form too. */
const HOST_NAME = /^[\w-]{1,63}(\.[\w-]{1,63})*\.?$/;

interface EndpointOptions {
  readonly variable: string;
  readonly defaultPort: number;
  /** Whether port 0 means the default port; otherwise it is out of range. */
  readonly zeroIsDefault: boolean;
}

/** Reads settings one by one and collects their problems. */
export class Settings {
  readonly warnings: string[] = [];
  /** The defaults, unless a test replaces some of them. */
  readonly tuning: Tuning;
  readonly #problems: ConfigProblem[] = [];
  readonly #env: Environment;
  readonly #readFile: ReadFile;
  readonly #secrets = new Map<Secret, string | undefined>();

  constructor(env: Environment, readFile: ReadFile) {
    this.#env = env;
    this.#readFile = readFile;
    this.tuning = this.#parseTuning();
  }

  #parseTuning(): Tuning {
    const text = this.text(TUNING_VARIABLE);
    if (text === undefined) return DEFAULT_TUNING;
    const tuning = parseTuning(text);
    if (typeof tuning === "string") {
      this.problem(TUNING_VARIABLE, tuning, text);
      return DEFAULT_TUNING;
    }
    this.warnings.push(
      `${TUNING_VARIABLE} is set: timings and limits differ from the defaults. It is for tests only.`,
    );
    return tuning;
  }

  /** Records a problem. Never pass a secret as `received`. */
  problem(variable: string, rule: string, received?: string): void {
    this.#problems.push({ variable, rule, ...(received !== undefined && { received }) });
  }

  /** Whether the variable has a problem already, so that a missing value is not reported as well. */
  isRefused(name: string): boolean {
    return this.#problems.some(({ variable }) => variable === name);
  }

  /**
   * Throws the collected problems, if any; `hints` are sentences that may help to fix them.
   *
   * @throws {ConfigError} when a problem was recorded.
   */
  throwProblems(hints: readonly string[]): void {
    if (this.#problems.length > 0) throw new ConfigError(this.#problems, hints);
  }

  /** The value; undefined if it is not set or empty. That of a secret may come from its file. */
  text(name: string): string | undefined {
    const secret = SECRETS.find((candidate) => candidate === name);
    return secret === undefined ? this.#env[name] || undefined : this.#secret(secret);
  }

  /** As `text`; records a problem if there is no value. */
  mandatory(name: string): string | undefined {
    const value = this.text(name);
    if (value === undefined && !this.isRefused(`${name}_FILE`)) {
      const secret = SECRETS.some((candidate) => candidate === name);
      this.problem(name, `must be set${secret ? ` (or ${name}_FILE to the path of a file)` : ""}`);
    }
    return value;
  }

  /** An integer in decimal digits; undefined if it is not set, or after recording a problem. */
  integer(name: string, { min, max }: { min: number; max: number }): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = parseInteger(text);
    if (value !== undefined && value >= min && value <= max) return value;
    const hint = text.startsWith("tcp://")
      ? " (Kubernetes sets it for a Service of that name; enableServiceLinks: false prevents that)"
      : "";
    this.problem(name, `must be an integer from ${min} to ${max}${hint}`, text);
    return undefined;
  }

  /** A number of bytes such as `1073741824` or `1G`; K, M, G and T are powers of 1024. */
  bytes(name: string, { min, max }: { min: number; max: number }): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const [, digits, unit = ""] = /^\s*(\d{1,15})\s*([KMGT]?)(?:i?B)?\s*$/i.exec(text) ?? [];
    const value = Number(digits) * 1024 ** " KMGT".indexOf(unit.toUpperCase() || " ");
    if (value >= min && value <= max) return value;
    const range = `from ${min / 2 ** 20}M to ${max / 2 ** 40}T`;
    this.problem(name, `must be a number of bytes ${range}, such as 500M or 2G`, text);
    return undefined;
  }

  /** The value that `choices` has for the received word, compared without regard to case. */
  choice<const T>(name: string, choices: Readonly<Record<string, T>>): T | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const word = text.trim().toLowerCase();
    if (Object.hasOwn(choices, word)) return choices[word];
    this.problem(name, `must be one of ${Object.keys(choices).sort().join(", ")}`, text);
    return undefined;
  }

  /** The text of the file that a variable names; `ruleFor` returns the rule that it breaks, if any. */
  file(name: string, ruleFor: (text: string) => string | undefined): string | undefined {
    const path = this.text(name);
    const text = path === undefined ? undefined : this.#read(name, path);
    const rule = text === undefined ? undefined : ruleFor(text);
    if (rule !== undefined) this.problem(name, rule, path);
    return text;
  }

  /** Parses one `host[:port]`, with brackets around an IPv6 address that has a port. */
  endpoint(text: string, options: EndpointOptions): Endpoint | undefined {
    const { variable, defaultPort, zeroIsDefault } = options;
    if (this.#refuseMoreThanHost(variable, text)) return undefined;
    const match = /^\[([^\]]*)\](?::(.*))?$/.exec(text) ?? /^([^:]*)(?::(.*))?$/.exec(text);
    const host = isIPv6(text) ? text : match?.[1] ?? "";
    const portText = isIPv6(text) ? undefined : match?.[2];
    const port = portText === undefined ? defaultPort : parseInteger(portText);
    const bracketed = text.startsWith("[");
    if (host === "" || /[\s/]/.test(host) || (bracketed && !isIPv6(host))) {
      this.problem(variable, "must be a host name or address, optionally with ':port'", text);
    } else if (port === undefined || port > 65535 || (port === 0 && !zeroIsDefault)) {
      this.problem(variable, "must have a port from 1 to 65535, or none", text);
    } else {
      return { host, port: port || defaultPort };
    }
    return undefined;
  }

  /** An address or name of this host to listen on; the brackets of IPv6 are removed. */
  listeningHost(
    name: string,
    { portVariable }: { readonly portVariable: string },
  ): string | undefined {
    const text = this.text(name);
    if (text === undefined || this.#refuseMoreThanHost(name, text)) return undefined;
    const address = text.replace(/^\[(.*)\]$/, "$1");
    if (isIPv6(address)) return address;
    if (HOST_NAME.test(text)) return text;
    const rule = `must be an address or name of this host, without a port (see ${portVariable})`;
    this.problem(name, rule, text);
    return undefined;
  }

  #refuseMoreThanHost(name: string, text: string): boolean {
    if (text.includes("//")) {
      this.problem(name, "must be a host name or address, not a URL", text);
    } else if (text.includes("@")) {
      const shown = text.replace(/.*@/s, "…@");
      this.problem(name, "must be a host name or address without a user name", shown);
    }
    return mayHoldLogin(text);
  }

  #secret(name: Secret): string | undefined {
    if (!this.#secrets.has(name)) {
      const path = this.#env[`${name}_FILE`] || undefined;
      const value = path === undefined ? this.#env[name] : this.#secretFile(`${name}_FILE`, path);
      this.#secrets.set(name, value || undefined);
    }
    return this.#secrets.get(name);
  }

  #secretFile(name: string, path: string): string | undefined {
    const value = this.#read(name, path)?.replace(/[\r\n]+$/, "");
    if (value === "") this.problem(name, "names an empty file", path);
    return value;
  }

  #read(name: string, path: string): string | undefined {
    try {
      return this.#readFile(path);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.problem(name, `names a file that cannot be read (${reason})`, path);
      return undefined;
    }
  }
}

function parseInteger(text: string): number | undefined {
  return /^\d{1,9}$/.test(text.trim()) ? Number(text) : undefined;
}
