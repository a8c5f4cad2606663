/**
 * The HTTP server: health and readiness for whoever supervises the logger, metrics, status, and the
 * status page. It only tells; nothing can be changed through it.
 */

import { isIP } from "node:net";
import { sleep } from "../common/backoff.ts";
import { describeError } from "../common/error_text.ts";
import { FloodGuard } from "../common/flood_guard.ts";
import type { HttpConfig } from "../config/config.ts";
import { describeEndpoint } from "../common/endpoint.ts";
import { log } from "../common/log.ts";
import type { Metrics } from "./metrics.ts";
import type { Monitor, Viewer } from "../monitoring/monitor.ts";
import type { Update } from "../monitoring/status.ts";
import { STATUS_PAGE } from "./status_page.ts";

/** Viewers of the page at the same time. */
const MAX_VIEWERS = 50;

/** A viewer who has so much still to read, beside what it begins with, is left behind. */
const MAX_UNREAD_BYTES = 4 * 2 ** 20;

/** What ends the events of such a viewer. */
const LEFT_BEHIND = new Error("the viewer does not keep up");

/** Sensors in an event, so that over a slow line, too, every few seconds one arrives. */
const SENSORS_PER_EVENT = 100;

/** Time for answers under way when the logger ends. */
const STOP_TIMEOUT_MS = 1_000;

/** Nothing but what the logger itself serves may be loaded; nobody may put it into a frame. */
const HEADERS = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' " +
    "data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "cache-control": "no-store",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};

/** The server cannot be started; the message says why. */
export class HttpError extends Error {
  override readonly name = "HttpError";
}

/** What the server tells. */
export interface HttpSources {
  readonly monitor: Pick<Monitor, "summary" | "status" | "addViewer" | "removeViewer">;
  readonly metrics: Pick<Metrics, "text" | "contentType">;
}

/** Serves from its construction until `stop`. */
export class HttpServer {
  readonly #host: string;
  readonly #monitor: HttpSources["monitor"];
  readonly #metrics: HttpSources["metrics"];
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  /** Until their connections end, which may be some time after they have been told to. */
  readonly #streams = new Set<EventStream>();
  readonly #answers = new Set<Promise<void>>();
  readonly #failures = new FloodGuard("failures to answer an HTTP request");
  readonly #abort = new AbortController();

  /**
   * Listens.
   *
   * @throws {HttpError} when the address is in use, or not one of this host.
   */
  constructor(config: HttpConfig, { monitor, metrics }: HttpSources) {
    this.#monitor = monitor;
    this.#metrics = metrics;
    const { host: hostname, port } = config;
    this.#host = hostname.toLowerCase();
    try {
      this.#server = Deno.serve(
        {
          hostname,
          port,
          signal: this.#abort.signal,
          onListen: () =>
            log.info(`Status page at http://${describeEndpoint(config).slice(1, -1)}/`),
          onError: (error) => {
            if (error !== LEFT_BEHIND) {
              this.#failures.warning(() => `Answering an HTTP request: ${describeError(error)}.`);
            }
            return text("internal error\n", 500);
          },
        },
        (request, { completed }) => this.#answer(request, this.#track(completed)),
      );
    } catch (error) {
      throw new HttpError(describeListenError(error), { cause: error });
    }
  }

  /** Ends the connections. Somebody who does not read an answer does not keep it from ending. */
  async stop(): Promise<void> {
    for (const stream of this.#streams) stream.close();
    const over = new AbortController();
    await Promise.race([Promise.all(this.#answers), sleep(STOP_TIMEOUT_MS, over.signal)]);
    over.abort();
    // Not after `shutdown`, which then would end the whole program.
    this.#abort.abort();
    await this.#server.finished;
    this.#failures.flush();
  }

  /** Resolves when all of an answer is on its way, or nobody is there to read it. */
  #track(completed: Promise<void>): Promise<void> {
    const ended = completed.catch(() => {
      // Whoever has asked is gone, which is no concern of ours.
    }).finally(() => this.#answers.delete(ended));
    this.#answers.add(ended);
    return ended;
  }

  async #answer(request: Request, ended: Promise<void>): Promise<Response> {
    const response = request.method === "GET" || request.method === "HEAD"
      ? await this.#route(request, ended)
      : text("only GET\n", 405, { allow: "GET, HEAD" });
    for (const [name, value] of Object.entries(HEADERS)) response.headers.set(name, value);
    return response;
  }

  async #route({ url, method }: Request, ended: Promise<void>): Promise<Response> {
    const { hostname, pathname } = URL.parse(url) ?? {};
    if (hostname === undefined || pathname === undefined) {
      return text("the header Host is not a host\n", 400);
    }
    if (!this.#isAddressedBy(hostname)) {
      return text(`this logger is at localhost, not at '${hostname}'\n`, 403);
    }
    switch (pathname) {
      case "/healthz": {
        const { problem } = this.#monitor.summary();
        return problem === null ? text("ok\n") : text(`${problem}\n`, 503);
      }
      case "/readyz": {
        const { broker, database } = this.#monitor.summary();
        const ready = broker.connected && database.connected;
        return text(`broker: ${broker.text}\ndatabase: ${database.text}\n`, ready ? 200 : 503);
      }
      case "/metrics":
        return new Response(await this.#metrics.text(), {
          headers: { "content-type": this.#metrics.contentType },
        });
      case "/api/status":
        return Response.json(this.#monitor.status());
      case "/api/events":
        if (this.#streams.size >= MAX_VIEWERS) return text("too many viewers\n", 503);
        return events(method === "HEAD" ? null : this.#stream(ended));
    }
    const file = STATUS_PAGE.get(pathname);
    if (file === undefined) return text("not found\n", 404);
    return new Response(file.text, { headers: { "content-type": file.type } });
  }

  /**
   * Where only this host may look, a page of somebody else's must not do so through the browser of
   * its user, by a name of its own that it has led here (DNS rebinding).
   */
  #isAddressedBy(hostname: string): boolean {
    const address = this.#server.addr.hostname;
    const isLoopback = address.startsWith("127.") || address === "::1";
    return !isLoopback || hostname === "localhost" || hostname === this.#host ||
      isIP(hostname.replace(/^\[(.*)\]$/, "$1")) !== 0;
  }

  #stream(ended: Promise<void>): ReadableStream<Uint8Array<ArrayBuffer>> {
    const stream = new EventStream(this.#monitor);
    this.#streams.add(stream);
    ended.then(() => {
      stream.close();
      this.#streams.delete(stream);
    });
    return stream.body;
  }
}

/** The events of one viewer (HTML standard, section "Server-sent events"). */
class EventStream {
  readonly body: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly #monitor: HttpSources["monitor"];
  #controller!: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;
  #isOpen = true;

  constructor(monitor: HttpSources["monitor"]) {
    this.#monitor = monitor;
    const { sensors, ...status } = monitor.addViewer(this.#send);
    const entries = sensors.map((sensor, index) => ({ index, ...sensor }));
    const beginning = [encodeEvent("status", { ...status, sensors: [] })];
    for (let first = 0; first < entries.length; first += SENSORS_PER_EVENT) {
      const some = entries.slice(first, first + SENSORS_PER_EVENT);
      beginning.push(encodeEvent("sensors", some));
    }
    const bytes = beginning.reduce((sum, { byteLength }) => sum + byteLength, 0);
    this.body = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
        for (const event of beginning) controller.enqueue(event);
      },
      cancel: () => this.#end(),
    }, { highWaterMark: bytes + MAX_UNREAD_BYTES, size: (chunk) => chunk.byteLength });
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#end();
    this.#controller.close();
  }

  readonly #send: Viewer = (update) => {
    if ((this.#controller.desiredSize ?? 0) > 0) {
      this.#controller.enqueue(encodeUpdate(update));
      return;
    }
    this.#end();
    // Unlike `close`, this keeps nothing for a viewer who may never read it.
    this.#controller.error(LEFT_BEHIND);
  };

  #end(): void {
    this.#isOpen = false;
    this.#monitor.removeViewer(this.#send);
  }
}

const encoder = new TextEncoder();

function encodeEvent(name: string, data: unknown): Uint8Array<ArrayBuffer> {
  return encoder.encode(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
}

/** Updates are the same for all viewers, and so are encoded once. */
const encodedUpdates = new WeakMap<Update, Uint8Array<ArrayBuffer>>();

function encodeUpdate(update: Update): Uint8Array<ArrayBuffer> {
  const bytes = encodedUpdates.get(update) ?? encodeEvent("update", update);
  encodedUpdates.set(update, bytes);
  return bytes;
}

function events(body: ReadableStream<Uint8Array<ArrayBuffer>> | null): Response {
  // nginx would keep back what it takes for an ordinary answer.
  const headers = { "content-type": "text/event-stream", "x-accel-buffering": "no" };
  return new Response(body, { headers });
}

function text(body: string, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(body, {
    status,
    headers: { "content-type": "text/plain; charset=utf-8", ...headers },
  });
}

function describeListenError(error: unknown): string {
  if (error instanceof Deno.errors.AddrInUse) return "another program uses this port";
  if (error instanceof Deno.errors.AddrNotAvailable) return "this host has no such address";
  if (error instanceof Deno.errors.PermissionDenied) return "ports below 1024 are for root";
  return describeError(error);
}
