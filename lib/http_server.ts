/**
 * The HTTP server: health and readiness for whoever supervises the logger, metrics, status, and the
 * status page. It only tells; nothing can be changed through it.
 */

import type { HttpConfig } from "./config.ts";
import { describeEndpoint } from "./endpoint.ts";
import { log } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import type { Monitor, Viewer } from "./monitor.ts";
import { describeError } from "./retry.ts";
import type { Update } from "./status.ts";
import { STATUS_PAGE } from "./status_page.ts";

/** Viewers of the page at the same time. */
const MAX_VIEWERS = 50;

/** A viewer who has so much still to read is left behind. */
const MAX_UNREAD_BYTES = 4 * 2 ** 20;

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

/** Serves from its construction until `stop`. */
export class HttpServer {
  readonly #monitor: Monitor;
  readonly #metrics: Metrics;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #streams = new Set<EventStream>();
  readonly #abort = new AbortController();

  /**
   * Listens.
   *
   * @throws {HttpError} when the address is in use, or not one of this host.
   */
  constructor(
    config: HttpConfig,
    { monitor, metrics }: { readonly monitor: Monitor; readonly metrics: Metrics },
  ) {
    this.#monitor = monitor;
    this.#metrics = metrics;
    const { host: hostname, port } = config;
    try {
      this.#server = Deno.serve(
        {
          hostname,
          port,
          signal: this.#abort.signal,
          onListen: () =>
            log.info(`Status page at http://${describeEndpoint(config).slice(1, -1)}/`),
          onError: (error) => {
            log.error(`Answering an HTTP request: ${describeError(error)}.`);
            return text("internal error\n", 500);
          },
        },
        (request) => this.#answer(request),
      );
    } catch (error) {
      throw new HttpError(describeListenError(error), { cause: error });
    }
  }

  /** Ends the connections. */
  async stop(): Promise<void> {
    for (const stream of this.#streams) stream.close();
    // Somebody who does not read an answer must not keep the logger from ending.
    const timer = setTimeout(() => this.#abort.abort(), STOP_TIMEOUT_MS);
    await this.#server.shutdown();
    clearTimeout(timer);
  }

  async #answer(request: Request): Promise<Response> {
    const response = request.method === "GET" || request.method === "HEAD"
      ? await this.#route(request)
      : text("only GET\n", 405, { allow: "GET, HEAD" });
    for (const [name, value] of Object.entries(HEADERS)) response.headers.set(name, value);
    return response;
  }

  async #route({ url, method }: Request): Promise<Response> {
    const { pathname } = new URL(url);
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
        return method === "HEAD" ? events(null) : this.#stream();
    }
    const file = STATUS_PAGE.get(pathname);
    if (file === undefined) return text("not found\n", 404);
    return new Response(file.text, { headers: { "content-type": file.type } });
  }

  #stream(): Response {
    if (this.#streams.size >= MAX_VIEWERS) return text("too many viewers\n", 503);
    const stream = new EventStream(this.#monitor, () => this.#streams.delete(stream));
    this.#streams.add(stream);
    return events(stream.body);
  }
}

/** The events of one viewer (HTML standard, section "Server-sent events"). */
class EventStream {
  readonly body: ReadableStream<Uint8Array>;
  readonly #monitor: Monitor;
  readonly #onClose: () => void;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #isOpen = true;

  constructor(monitor: Monitor, onClose: () => void) {
    this.#monitor = monitor;
    this.#onClose = onClose;
    this.body = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
      },
      cancel: () => this.#end(),
    }, { highWaterMark: MAX_UNREAD_BYTES, size: (chunk) => chunk.byteLength });
    this.#controller.enqueue(encodeEvent("status", monitor.addViewer(this.#send)));
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#end();
    this.#controller.close();
  }

  readonly #send: Viewer = (update) => {
    if ((this.#controller.desiredSize ?? 0) <= 0) return this.close();
    this.#controller.enqueue(encodeUpdate(update));
  };

  #end(): void {
    this.#isOpen = false;
    this.#monitor.removeViewer(this.#send);
    this.#onClose();
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

function events(body: ReadableStream<Uint8Array> | null): Response {
  // nginx would keep back what it takes for an ordinary answer.
  const headers = { "content-type": "text/event-stream", "x-accel-buffering": "no" };
  return new Response(body as ReadableStream<Uint8Array<ArrayBuffer>> | null, { headers });
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
