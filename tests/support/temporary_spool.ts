/** A spool in a temporary directory, messages for it, and ways to make it fail. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { DatabaseSync } from "node:sqlite";
import type { SpoolConfig } from "../../lib/config/config.ts";
import { DEFAULT_TUNING } from "../../lib/config/tuning.ts";
import { Delivery, type QoS } from "../../lib/message/delivery.ts";
import { SpoolFile } from "../../lib/spool/file.ts";

export const MEBIBYTE = 2 ** 20;
export const PAGE_BYTES = 4_096;

/** A file system in memory: the tests wait for the disk far more often than a logger does. */
const MEMORY = "/dev/shm";

/** The directory and the open files in it; disposal closes and removes them. */
export class TemporarySpool implements Disposable {
  readonly config: SpoolConfig;
  readonly path: string;
  #spoolFile: SpoolFile | undefined;
  #observer: DatabaseSync | undefined;

  constructor({ maxBytes = 64 * MEBIBYTE } = {}) {
    this.config = { directory: makeDirectory(), maxBytes, tuning: DEFAULT_TUNING };
    this.path = SpoolFile.path(this.config);
  }

  /** Opens the file as the logger does at its start; closes the one that was open before. */
  open({ maxBytes = this.config.maxBytes } = {}): SpoolFile {
    this.close();
    return this.#spoolFile = SpoolFile.open({ ...this.config, maxBytes });
  }

  /** Closes the file as the logger does at its end. */
  close(): void {
    this.#observer?.close();
    this.#spoolFile?.close();
    this.#observer = this.#spoolFile = undefined;
  }

  /** Reads the file on disk as another program does. */
  query(sql: string, ...values: (string | number)[]): Record<string, unknown>[] {
    this.#observer ??= new DatabaseSync(this.path, { readOnly: true });
    return this.#observer.prepare(sql).all(...values);
  }

  /** The topics of the messages on disk, oldest first. */
  topics(): string[] {
    return this.query("SELECT topic FROM message ORDER BY id").map(({ topic }) => String(topic));
  }

  /** The names of the damaged files that were kept. */
  damagedFiles(): string[] {
    return [...Deno.readDirSync(this.config.directory)].map(({ name }) => name)
      .filter((name) => /\.damaged-/.test(name) && !name.endsWith("-journal")).toSorted();
  }

  [Symbol.dispose](): void {
    this.close();
    Deno.removeSync(this.config.directory, { recursive: true });
  }
}

function makeDirectory(): string {
  const prefix = "kraken-test-";
  try {
    return Deno.makeTempDirSync({ dir: MEMORY, prefix });
  } catch {
    return Deno.makeTempDirSync({ prefix });
  }
}

/** A message whose topic is its name. */
export function message(name: string, { qos = 1, bytes = 0 }: MessageOptions = {}): Delivery {
  return new Delivery(name, Buffer.alloc(bytes, "x"), { qos });
}

interface MessageOptions {
  readonly qos?: QoS;
  /** Length of the payload. */
  readonly bytes?: number;
}

/** Messages with the names `0`, `1`, … */
export function messages(count: number, options?: MessageOptions): Delivery[] {
  return Array.from({ length: count }, (_, index) => message(String(index), options));
}

/** Makes a spool file refuse all writes, as a full disk does, or accept them again. */
export function refuseWrites(spoolFile: SpoolFile, refuse: boolean): void {
  spoolFile.all(`PRAGMA query_only = ${refuse ? 1 : 0}`);
}

/** Overwrites pages of a file, counted from 0, as a failing disk does. */
export function damagePages(path: string, pages: readonly number[]): void {
  using file = Deno.openSync(path, { write: true });
  for (const page of pages) {
    file.seekSync(page * PAGE_BYTES, Deno.SeekMode.Start);
    file.writeSync(new Uint8Array(PAGE_BYTES).fill(0x41));
  }
}

/** The pages of a file that hold a text. */
export function pagesWith(path: string, text: string): number[] {
  const bytes = Buffer.from(Deno.readFileSync(path));
  const pages = new Set<number>();
  for (let at = -1; (at = bytes.indexOf(text, at + 1)) >= 0;) {
    pages.add(Math.floor(at / PAGE_BYTES));
  }
  assert.notEqual(pages.size, 0, `no page has '${text}'`);
  return [...pages];
}

/** Changes a text in a file to another one of the same length. */
export function replaceInFile(path: string, { from, to }: { from: string; to: string }): void {
  assert.equal(from.length, to.length);
  const bytes = Buffer.from(Deno.readFileSync(path));
  const at = bytes.indexOf(from);
  assert.notEqual(at, -1, `'${from}' not found`);
  bytes.write(to, at, "latin1");
  Deno.writeFileSync(path, bytes);
}

/** Damages the pages with a text under an open database, and makes it read the disk again. */
export function damageUnder(temporary: TemporarySpool, text: string): void {
  const pages = pagesWith(temporary.path, text);
  using other = new DatabaseSync(temporary.path);
  other.exec("INSERT INTO rejected (time_ms, topic, reason, payload) VALUES (0, '', '', x'')");
  damagePages(temporary.path, pages);
}
