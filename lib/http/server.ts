/**
 * The HTTP server: health and readiness for a supervisor, metrics, status API and status page. It is
 * read-only: nothing can be changed through it.
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

/** Maximum number of concurrent event streams. */
const MAX_VIEWERS = 50;

/** A viewer with more unread bytes, beyond the initial events, is disconnected. */
const MAX_UNREAD_BYTES = 4 * 2 ** 20;

/** The error that ends the stream of such a viewer. */
const TOO_SLOW = new Error("the viewer does not keep up");

/** Sensors per event. A small event arrives often enough over a slow line not to look like a stall. */
const SENSORS_PER_EVENT = 100;

/** Time that answers in progress have to finish when the logger stops. */
const STOP_TIMEOUT_MS = 1_000;

/** The page may load only what the logger itself serves, and must not be embedded in a frame. */
const HEADERS = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' " +
    "data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "cache-control": "no-store",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};

/** The server cannot listen. The message is the reason, without a full stop. */
export class HttpError extends Error {
  override readonly name = "HttpError";
}

/** What the server serves. */
export interface HttpSources {
  readonly monitor: Pick<Monitor, "summary" | "status" | "addViewer" | "removeViewer">;
  readonly metrics: Pick<Metrics, "text" | "contentType">;
}

/** Serves from its construction until `stop`, which the owner awaits. */
export class HttpServer {
  readonly #host: string;
  readonly #monitor: HttpSources["monitor"];
  readonly #metrics: HttpSources["metrics"];
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  /** Open streams. Each stays until its connection has ended, which may be some time after `close`. */
  readonly #streams = new Set<EventStream>();
  readonly #answers = new Set<Promise<void>>();
  readonly #failures = new FloodGuard("failures to answer an HTTP request");
  readonly #abort = new AbortController();

  /**
   * Starts to listen.
   *
   * @throws {HttpError} when the address is in use, is not one of this host, or needs privileges.
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
            log.info(
              `Serving the status page at http://${
                describeEndpoint(config).slice(1, -1)
              }/ and the ` +
                "metrics at /metrics.",
            ),
          onError: (error) => {
            if (error !== TOO_SLOW) {
              this.#failures.warning(() =>
                `Cannot answer an HTTP request: ${describeError(error)}.`
              );
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

  /**
   * Closes all connections, at the latest after a timeout, so that a client that does not read
   * cannot delay the exit.
   */
  async stop(): Promise<void> {
    for (const stream of this.#streams) stream.close();
    const finished = new AbortController();
    await Promise.race([Promise.all(this.#answers), sleep(STOP_TIMEOUT_MS, finished.signal)]);
    finished.abort();
    // Without `shutdown` before it: aborting after that would terminate the whole program.
    this.#abort.abort();
    await this.#server.finished;
    this.#failures.flush();
  }

  /** Resolves when an answer was sent completely, or its client is gone. */
  #track(completed: Promise<void>): Promise<void> {
    const ended = completed.catch(() => {
      // Swallowed: the client disconnected, which is no failure of the server.
    }).finally(() => this.#answers.delete(ended));
    this.#answers.add(ended);
    return ended;
  }

  async #answer(request: Request, ended: Promise<void>): Promise<Response> {
    const response = request.method === "GET" || request.method === "HEAD"
      ? await this.#route(request, ended)
      : text("only GET and HEAD are allowed\n", 405, { allow: "GET, HEAD" });
    for (const [name, value] of Object.entries(HEADERS)) response.headers.set(name, value);
    return response;
  }

  async #route({ url, method }: Request, ended: Promise<void>): Promise<Response> {
    const { hostname, pathname } = URL.parse(url) ?? {};
    if (hostname === undefined || pathname === undefined) {
      return text("the Host header is malformed\n", 400);
    }
    if (!this.#isAddressedBy(hostname)) {
      return text(`this logger answers requests for localhost, not for '${hostname}'\n`, 403);
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
   * Prevents DNS rebinding: on a loopback address, only requests for localhost or an IP address are
   * answered. Otherwise a foreign web page could read the logger through the browser of a local user,
   * by a host name of its site that resolves to this host.
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

/** The event stream of one viewer (HTML standard, section "Server-sent events"). */
class EventStream {
  readonly body: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly #monitor: HttpSources["monitor"];
  #controller!: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;
  #isOpen = true;

  constructor(monitor: HttpSources["monitor"]) {
    this.#monitor = monitor;
    const { sensors, ...status } = monitor.addViewer(this.#send);
    const entries = sensors.map((sensor, index) => ({ index, ...sensor }));
    const initial = [encodeEvent("status", { ...status, sensors: [] })];
    for (let first = 0; first < entries.length; first += SENSORS_PER_EVENT) {
      const chunk = entries.slice(first, first + SENSORS_PER_EVENT);
      initial.push(encodeEvent("sensors", chunk));
    }
    const bytes = initial.reduce((sum, { byteLength }) => sum + byteLength, 0);
    this.body = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
        for (const event of initial) controller.enqueue(event);
      },
      cancel: () => this.#end(),
    }, { highWaterMark: bytes + MAX_UNREAD_BYTES, size: (chunk) => chunk.byteLength });
  }

  /** Ends the stream after the events that are queued. */
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
    // Unlike `close`, this discards the queued events, which the viewer may never read.
    this.#controller.error(TOO_SLOW);
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

/** All viewers get the same updates, so each is encoded once. */
const encodedUpdates = new WeakMap<Update, Uint8Array<ArrayBuffer>>();

function encodeUpdate(update: Update): Uint8Array<ArrayBuffer> {
  const bytes = encodedUpdates.get(update) ?? encodeEvent("update", update);
  encodedUpdates.set(update, bytes);
  return bytes;
}

function events(body: ReadableStream<Uint8Array<ArrayBuffer>> | null): Response {
  // nginx would buffer an ordinary answer.
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
  if (error instanceof Deno.errors.AddrInUse) return "the port is in use by another program";
  if (error instanceof Deno.errors.AddrNotAvailable) {
    return "the address does not belong to this host";
  }
  if (error instanceof Deno.errors.PermissionDenied) return "ports below 1024 require privileges";
  return describeError(error);
}
