/**
 * Generates malformed and unusual payloads, with some valid ones among them, from a seed.
 */
import { Buffer } from "node:buffer";
import { createRandom, makeReadings, type Reading, toPayload } from "../support/readings.ts";

/** A message of the sequence. */
export interface FuzzMessage {
  readonly topic: string;
  readonly payload: Uint8Array;
  /** The reading of a valid message; undefined for the others, which may be valid by chance. */
  readonly reading?: Reading;
}

/** The parameters of the sequence. */
export interface FuzzOptions {
  readonly count: number;
  readonly seed: number;
  /** Sensors of the valid messages, which are every fifth one. */
  readonly sensors: readonly Sensor[];
  /** Sensors that the other messages were made from. */
  readonly targets: readonly Sensor[];
}

interface Sensor {
  readonly uuid: string;
  readonly sid: number;
}

const VALID_EVERY = 5;

/** The limit of docs/messages-and-tables.md; lengths around it are of interest. */
const MAX_BYTES = 64 * 1024;

/** Sensors with ids so different that no mutation turns one into another. */
export function makeTargets(count: number, seed: number): Sensor[] {
  const random = createRandom(seed);
  const digits = (length: number): string =>
    Array.from({ length }, () => Math.floor(random() * 16).toString(16)).join("");
  return Array.from({ length: count }, (_, sid) => ({
    uuid: [8, 4, 4, 4, 12].map(digits).join("-"),
    sid,
  }));
}

/** Generates the messages one at a time, because together they are large. The last one is valid. */
export function* makeFuzz({ count, seed, sensors, targets }: FuzzOptions): Generator<FuzzMessage> {
  const valid = makeReadings({ count: Math.ceil(count / VALID_EVERY), sensors, seed }).values();
  const bases = makeReadings({ count, sensors: targets, seed: seed + 1 });
  const fuzzer = new Fuzzer(seed + 2);
  for (const [index, base] of bases.entries()) {
    const reading = (count - 1 - index) % VALID_EVERY === 0 ? valid.next().value : undefined;
    if (reading !== undefined) {
      yield { topic: topicOf(reading), payload: Buffer.from(toPayload(reading)), reading };
    } else {
      yield { topic: fuzzer.topic(base), payload: fuzzer.payload(base) };
    }
  }
}

function topicOf({ uuid, sid }: Sensor): string {
  return `sensors/fuzz/${uuid}/${sid}`;
}

/** The fields of a message as JSON texts, in their order. */
type Fields = [name: string, text: string][];

/** A way to make a payload, and its relative frequency. */
interface Kind {
  readonly weight: number;
  readonly make: (fields: Fields) => string | Uint8Array;
}

/** Generates payloads. */
class Fuzzer {
  readonly #random: () => number;
  readonly #kinds: readonly Kind[] = [
    { weight: 600, make: (fields) => this.#mutate(this.#write(fields)) },
    { weight: 120, make: (fields) => this.#write(this.#withText(fields, "timestamp")) },
    { weight: 80, make: (fields) => this.#write(this.#withText(fields, "value")) },
    { weight: 40, make: (fields) => this.#write(this.#withText(fields, "sid")) },
    { weight: 40, make: (fields) => this.#write(this.#withText(fields, "uuid")) },
    { weight: 60, make: (fields) => this.#write(this.#rearrange(fields)) },
    { weight: 40, make: () => this.#bytes(this.#below(300)) },
    { weight: 10, make: () => "" },
    { weight: 4, make: (fields) => this.#nest(fields) },
    { weight: 4, make: (fields) => this.#lengthen(fields) },
    { weight: 0.5, make: (fields) => this.#enlarge(fields) },
  ];
  readonly #weight = this.#kinds.reduce((sum, { weight }) => sum + weight, 0);

  constructor(seed: number) {
    this.#random = createRandom(seed);
  }

  payload(base: Reading): Uint8Array {
    let at = this.#random() * this.#weight;
    const kind = this.#kinds.find(({ weight }) => (at -= weight) < 0) ?? this.#kinds[0];
    return Buffer.from(kind?.make(this.#spell(base)) ?? "");
  }

  topic(base: Reading): string {
    return this.#random() < 0.01 ? `sensors/${this.#pick(TOPICS)}` : topicOf(base);
  }

  /** A reading in one of the accepted forms. */
  #spell(base: Reading): Fields {
    const fields = Object.entries(JSON.parse(toPayload(base)) as Record<string, unknown>)
      .map(([name, value]): [string, string] => [name, JSON.stringify(value)]);
    if (this.#random() < 0.8) return fields;
    const replace = (name: string, change: (text: string) => string): void => {
      const field = fields.find(([other]) => other === name);
      if (field !== undefined) field[1] = change(field[1]);
    };
    this.#pick([
      () => replace("timestamp", (text) => `"${text}"`),
      () => replace("timestamp", (text) => text.replace(".", "") + "e-6"),
      () => replace("uuid", (text) => text.replaceAll("-", "")),
      () => replace("uuid", (text) => `"{${text.slice(1, -1).toUpperCase()}}"`),
      () => replace("uuid", (text) => `"urn:uuid:${text.slice(1)}`),
      () => replace("uuid", (text) => `"\\u00${text.charCodeAt(1).toString(16)}${text.slice(2)}`),
      () => replace("value", () => this.#pick(["NaN", "Infinity", "-Infinity", "true", "-0.0"])),
      () => fields.reverse(),
    ])();
    return fields;
  }

  #write(fields: Fields): string {
    const space = this.#random() < 0.1 ? this.#pick(["\t", "\r\n  ", "\v", "\u00a0"]) : " ";
    return `{${fields.map(([name, text]) => `"${name}":${space}${text}`).join(`,${space}`)}}`;
  }

  /** Changes some bytes at random positions. */
  #mutate(text: string): Uint8Array {
    let bytes = Buffer.from(text);
    for (let left = 1 + this.#below(4); left > 0; left--) {
      const at = this.#below(bytes.length + 1);
      const length = this.#below(this.#random() < 0.8 ? 4 : bytes.length);
      const [before, part] = [bytes.subarray(0, at), bytes.subarray(at, at + length)];
      const after = bytes.subarray(at + part.length);
      bytes = Buffer.concat(
        this.#pick([
          () => [before, this.#flipBit(part), after],
          () => [before, after],
          () => [before, Buffer.from(this.#pick(PIECES)), part, after],
          () => [before, this.#bytes(length), part, after],
          () => [before, part, part, after],
          () => [before],
          () => [before, Buffer.from(part).reverse(), after],
          () => [part, before, after],
        ])(),
      );
    }
    return bytes;
  }

  #flipBit(part: Buffer): Buffer {
    const flipped = Buffer.from(part);
    const at = this.#below(part.length);
    if (part.length > 0) flipped[at] = (flipped[at] ?? 0) ^ (1 << this.#below(8));
    return flipped;
  }

  /** Replaces the value of a field by any text, or by a number close to some limit. */
  #withText(fields: Fields, name: string): Fields {
    const digits = (): string =>
      String(this.#random()).slice(2, 3 + this.#below(17)).repeat(1 + this.#below(3));
    const texts = [
      () => this.#pick(TEXTS),
      () => this.#pick(TEXTS),
      () => JSON.stringify(this.#pick(TEXTS)),
      () => `${this.#pick(["", "-"])}${digits()}`,
      () => `${this.#pick(["", "-"])}${this.#below(2 ** 31)}.${digits()}`,
      () => `${this.#pick(["", "-"])}${digits()}e${this.#below(800) - 400}`,
      () => `"${this.#below(2 ** 31)}.${digits()}"`,
      () => `"${this.#bytes(8).toString("latin1")}"`,
    ];
    const text = this.#pick(texts)();
    return fields.map(([other, old]) => [other, other === name ? text : old]);
  }

  /** Omits, duplicates, renames or swaps fields. */
  #rearrange(fields: Fields): Fields {
    const at = this.#below(fields.length);
    const [name = "", text = ""] = fields[at] ?? [];
    const other: [string, string] = [name, this.#pick([text, "1", "null", '"x"'])];
    return this.#pick([
      () => fields.toSpliced(at, 1),
      () => [other, ...fields],
      () => [...fields, other],
      () => fields.toSpliced(at, 1, [this.#pick(NAMES), text]),
      () => [[this.#pick(NAMES), `{${this.#write(fields)}}`], ...fields] as Fields,
      () => [["x", this.#write(fields)], ...fields] as Fields,
      () => fields.map(([key], index) => [key, fields.at(index - 1)?.[1] ?? ""]) as Fields,
    ])();
  }

  /** Nests arrays or objects, closed or not, in a member or at the top level. */
  #nest(fields: Fields): string {
    // A hundred levels are allowed, the object itself included.
    const depth = this.#pick([10, 99, 100, 500, 10_000]);
    const [begin, end] = this.#pick([["[", "]"], ['{"a":', "}"]] as const);
    const nested = `${begin.repeat(depth)}0${end.repeat(depth)}`;
    return this.#pick([
      () => this.#write([...fields, ["x", nested]]),
      () => this.#write([["x", nested], ...fields]),
      () => nested,
      () => begin.repeat(depth),
      () => this.#write([...fields, ["x", begin.repeat(depth)]]),
      () => begin.repeat(depth) + this.#write(fields),
      () => this.#write([...fields, ["x", nested.slice(0, -1)]]),
    ])();
  }

  /** Extends a payload to about the maximum length. */
  #lengthen(fields: Fields): string {
    const text = this.#write(fields);
    const left = MAX_BYTES - Buffer.byteLength(text) + this.#below(5) - 2;
    const [name = ""] = this.#pick(fields);
    const fill = this.#pick([" ", "9", "0", "[", '"', "\\", "\\\\", "é", "-", "e", "NaN,"]);
    const long = fill.repeat(left / Buffer.byteLength(fill));
    return this.#pick([
      () => text + " ".repeat(left),
      () => this.#write([...fields, ["x".repeat(left - 8), "0"]]),
      () => this.#write([["x", `"${long}"`], ...fields]),
      () => this.#write(fields.map(([key, old]) => [key, key === name ? `${old}${long}` : old])),
      () => this.#write(fields.map(([key, old]) => [key, key === name ? `"${long}"` : old])),
      () => this.#write(fields.map(([key, old]) => [key, key === name ? `0.${long}1` : old])),
    ])();
  }

  /** Extends a payload to a megabyte. */
  #enlarge(fields: Fields): string | Uint8Array {
    const size = 1_000_000;
    const [name = ""] = this.#pick(fields);
    const long = this.#pick([
      () => "9".repeat(size),
      () => `"${"x".repeat(size)}"`,
      () => "[".repeat(size),
      () => `0.${"3".repeat(size)}`,
    ])();
    return this.#pick([
      () => this.#write(fields.map(([key, old]) => [key, key === name ? long : old])),
      () => long,
      () => this.#bytes(size),
      () => this.#write(fields).padEnd(size),
    ])();
  }

  #bytes(length: number): Buffer {
    const bytes = Buffer.alloc(length);
    for (let at = 0; at < length; at++) bytes[at] = this.#below(256);
    return bytes;
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #pick<T>(choices: readonly T[]): T {
    return choices[this.#below(choices.length)] as T;
  }
}

/** The texts that mutations insert. */
const PIECES: readonly (string | Uint8Array)[] = [
  ...'0123456789eE+-."\\{}[],: \n',
  ..."NaN Infinity -Infinity null true e99 e-99 0x1 // /* \\u0000 \\ud800 \\udc00 \ufeff".split(
    " ",
  ),
  ..."timestamp uuid sid value __proto__ constructor".split(" ").map((name) => `"${name}":1,`),
  "\0",
  "😀",
  Uint8Array.of(0xff),
  Uint8Array.of(0xc0, 0xaf),
  Uint8Array.of(0xed, 0xa0, 0x80),
  Uint8Array.of(0xf4, 0x90, 0x80, 0x80),
];

/** Texts for the values of fields. */
const TEXTS: readonly string[] = [
  ..."null true false {} [] NaN Infinity -Infinity nan inf +1 -1 0 -0 -0.0 01 1. .5 0x10".split(
    " ",
  ),
  ..."1e400 -1e400 1e-400 4.9e-324 2e-324 1.7976931348623157e308 1e309 1E5 1e+5 1_000".split(" "),
  ..."2147483647 2147483648 -2147483648 -2147483649 9007199254740993 1e99999999999".split(" "),
  ..."4294967295.999999 4294967296.000001 999999999999.999999 999999999999.9999999".split(" "),
  ..."1e12 1e15 1e18 1e20 1e21 -210866803200 -210866803200.000001 -210866803201".split(" "),
  ..."0e999999999 0.0000005 -0.0000005 1.0000005 1700000000.1234565 1.5e0 2.0 1e0".split(" "),
  '"\\ud800"',
  '"\\udc00\\ud800"',
  '"\\u0000"',
  '" 1.5\\n"',
  '"１２３"',
  "١٢٣",
  '"\u2028"',
  "'1'",
  "undefined",
];

/** Texts for the names of fields. */
const NAMES = [
  "Timestamp",
  "uuid ",
  "__proto__",
  "constructor",
  "toString",
  "",
  "\\u0000",
  "value",
];

/** Topics after `sensors/`. */
const TOPICS: readonly string[] = [
  "",
  "/",
  "a//b",
  " ",
  "'; DROP TABLE sensor_data; --",
  "%s%n${x}$(x)`x`",
  "é😀\u202e",
  "x".repeat(2000),
  "a/".repeat(150),
  "$share/x/y",
  "../../etc/passwd",
];
