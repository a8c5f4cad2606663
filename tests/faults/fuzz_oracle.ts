/**
 * The expected meaning of a payload, decided without code of the logger: a separate JSON parser and
 * the rules of docs/messages-and-tables.md.
 */
import { pythonMicros } from "../support/python_time.ts";

/** A payload that is a reading. */
export interface Verdict {
  /** With hyphens, in lower case. */
  readonly uuid: string;
  readonly sid: number;
  /** Microseconds since 1970-01-01 00:00 UTC, as Python computes them from a double. */
  readonly timeUs: bigint;
  /** For a column of the type `double precision`. */
  readonly value: number;
}

const MAX_BYTES = 64 * 1024;

/** From the beginning of the year 1 to the end of the year 9999. */
const MIN_TIME_US = BigInt(Date.parse("0001-01-01T00:00:00Z")) * 1000n;
const END_TIME_US = BigInt(Date.parse("9999-12-31T23:59:59Z")) * 1000n + 1_000_000n;

/** Open arrays and objects, the outermost object included. */
const MAX_DEPTH = 100;

/** A JSON value, or a literal of Python. The content of arrays and objects is dropped. */
type Token =
  | { readonly type: "string"; readonly text: string }
  | { readonly type: "number"; readonly text: string }
  | { readonly type: "literal"; readonly text: string }
  | { readonly type: "array" | "object" };

/** The reading of a payload; undefined if the payload must be rejected. */
export function judge(payload: Uint8Array): Verdict | undefined {
  if (payload.length > MAX_BYTES) return undefined;
  const members = readMembers(payload);
  const uuid = readUuid(members?.get("uuid"));
  const time = readTime(members?.get("timestamp"));
  const sid = readSid(members?.get("sid"));
  const value = readValue(members?.get("value"));
  if (uuid === undefined || time === undefined || sid === undefined || value === undefined) {
    return undefined;
  }
  return { uuid, sid, value, ...time };
}

/** The members of an object; of members with the same name, the last one. */
function readMembers(payload: Uint8Array): Map<string, Token> | undefined {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(payload);
    return new Reader(text.replace(/^\ufeff/, "")).readDocument();
  } catch (error) {
    if (error instanceof TypeError || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const LITERAL = /true|false|null|NaN|-?Infinity/y;

/** Parses an object without recursion, so that any depth of nesting works. */
class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  /** The members of the outermost object; undefined if the document is not an object. */
  readDocument(): Map<string, Token> {
    const members = new Map<string, Token>();
    const open: ("array" | "object")[] = [];
    let name = "";
    while (true) {
      // At the start of a value.
      const value = this.#readValue();
      if (open.length === 1 && open[0] === "object") members.set(name, value);
      let isComplete = true;
      if (value.type === "array" || value.type === "object") {
        const end = value.type === "array" ? "]" : "}";
        if (!this.#skip(end)) {
          open.push(value.type);
          isComplete = false;
          if (open.length > MAX_DEPTH) throw new SyntaxError("nested too deeply");
        }
      }
      // At the end of a value, and possibly of the enclosing ones.
      while (isComplete && open.length > 0) {
        if (this.#skip(",")) break;
        this.#expect(open.pop() === "array" ? "]" : "}");
      }
      if (open.length === 0) {
        this.#skipSpace();
        if (this.#at < this.#text.length) throw new SyntaxError("more behind the end");
        return members;
      }
      if (open.at(-1) === "object") {
        name = this.#readString();
        this.#expect(":");
      }
    }
  }

  #readValue(): Token {
    this.#skipSpace();
    if (this.#text[this.#at] === '"') return { type: "string", text: this.#readString() };
    if (this.#skip("{")) return { type: "object" };
    if (this.#skip("[")) return { type: "array" };
    for (const [type, pattern] of [["literal", LITERAL], ["number", NUMBER]] as const) {
      pattern.lastIndex = this.#at;
      const [text] = pattern.exec(this.#text) ?? [];
      if (text !== undefined) {
        this.#at += text.length;
        return { type, text };
      }
    }
    throw new SyntaxError("no value");
  }

  #readString(): string {
    this.#skipSpace();
    if (this.#text[this.#at++] !== '"') throw new SyntaxError("no string");
    let text = "";
    for (let character; (character = this.#text[this.#at++]) !== '"';) {
      if (character === undefined || character < " ") throw new SyntaxError("no end of the string");
      text += character === "\\" ? this.#readEscape() : character;
    }
    return text;
  }

  #readEscape(): string {
    const character = this.#text[this.#at++] ?? "";
    if (character === "u") {
      const digits = this.#text.slice(this.#at, this.#at += 4);
      if (!/^[0-9a-f]{4}$/i.test(digits)) throw new SyntaxError("no character");
      return String.fromCharCode(parseInt(digits, 16));
    }
    const index = '"\\/bfnrt'.indexOf(character);
    if (character === "" || index < 0) throw new SyntaxError("no escape");
    return '"\\/\b\f\n\r\t'[index] as string;
  }

  #skipSpace(): void {
    while (" \t\n\r".includes(this.#text[this.#at] ?? "x")) this.#at++;
  }

  #skip(character: string): boolean {
    this.#skipSpace();
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #expect(character: string): void {
    if (!this.#skip(character)) throw new SyntaxError(`no ${character}`);
  }
}

function readUuid(token: Token | undefined): string | undefined {
  if (token?.type !== "string") return undefined;
  let text = token.text.toLowerCase();
  if (text.startsWith("urn:uuid:")) text = text.slice(9);
  if (text.startsWith("{") && text.endsWith("}")) text = text.slice(1, -1);
  // A text whose length changes in lower case is not ASCII.
  const isHyphenated = text.length === 36 && [8, 13, 18, 23].every((at) => text[at] === "-");
  const digits = isHyphenated ? text.replaceAll("-", "") : text;
  if (digits.length !== 32 || [...digits].some((digit) => !"0123456789abcdef".includes(digit))) {
    return undefined;
  }
  const parts = [[0, 8], [8, 12], [12, 16], [16, 20], [20, 32]];
  return parts.map(([from, to]) => digits.slice(from, to)).join("-");
}

function readTime(
  token: Token | undefined,
): Pick<Verdict, "timeUs"> | undefined {
  if (token?.type !== "number" && token?.type !== "string") return undefined;
  const text = token.text.trim();
  const [, sign, whole = "", fraction = "", exponent = "0"] =
    /^([+-]?)([0-9]*)(?:\.([0-9]*))?(?:e([+-]?[0-9]+))?$/i.exec(text) ?? [];
  if (sign === undefined || whole + fraction === "" || exponent === "") return undefined;
  const seconds = Number(text);
  if (!Number.isFinite(seconds)) return undefined;
  const timeUs = pythonMicros(seconds);
  return timeUs < MIN_TIME_US || timeUs >= END_TIME_US ? undefined : { timeUs };
}

function readSid(token: Token | undefined): number | undefined {
  if (token === undefined) return 0;
  const sid = token.type === "number" ? Number(token.text) : NaN;
  return Number.isInteger(sid) && sid >= -(2 ** 31) && sid < 2 ** 31 ? sid + 0 : undefined;
}

function readValue(token: Token | undefined): number | undefined {
  if (token?.type === "number") {
    const value = Number(token.text);
    return Number.isFinite(value) ? value : undefined;
  }
  if (token?.type !== "literal" || token.text === "null") return undefined;
  return token.text === "true" ? 1 : token.text === "false" ? 0 : Number(token.text);
}
