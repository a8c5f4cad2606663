/** An HTTP server whose monitor returns a status that a test makes up. */
import { HttpServer } from "../../lib/http/server.ts";
import type { Viewer } from "../../lib/monitoring/monitor.ts";
import type { Sample, SensorStatus, Status, Update } from "../../lib/monitoring/status.ts";
import { captureLog } from "../support/captured_log.ts";
import { findFreePort, LOOPBACK } from "../support/ports.ts";
import { makeSensors } from "../support/readings.ts";

/** A server and its viewers. The test disposes it. */
export interface Served extends AsyncDisposable {
  readonly port: number;
  readonly url: string;
  /** The current status; the test may replace it. */
  status: Status;
  /** The current viewers. */
  readonly viewers: Set<Viewer>;
  /** Sends `status` to the viewers as an update, as if a second had passed. */
  update(): void;
  /** The lines of the log. */
  readonly lines: readonly string[];
}

export interface ServeOptions {
  readonly host?: string;
  /** Whether to send an update every second; without updates, the page reports a lost connection. */
  readonly isAlive?: boolean;
}

/** Serves until it is disposed. */
export function serve(
  status: Status = makeStatus(),
  { host = LOOPBACK, isAlive = false }: ServeOptions = {},
): Served {
  const port = findFreePort();
  const lines = captureLog();
  const viewers = new Set<Viewer>();
  const server = new HttpServer({ host, port }, {
    monitor: {
      summary: () => served.status,
      status: () => served.status,
      addViewer: (viewer) => {
        viewers.add(viewer);
        return served.status;
      },
      removeViewer: (viewer) => {
        viewers.delete(viewer);
      },
    },
    metrics: { contentType: "text/plain", text: () => Promise.resolve("") },
  });
  const served: Served = {
    ...{ port, url: `http://${LOOPBACK}:${port}/`, status, viewers, lines },
    update(): void {
      send(served.status.sensors.map((sensor, index) => ({ index, ...sensor })));
    },
    [Symbol.asyncDispose]: async () => {
      clearInterval(timer);
      await server.stop();
    },
  };
  const send = (sensors: Update["sensors"]): void => {
    const { history: _history, sensors: _sensors, ...rest } = served.status;
    const sample = makeSample(Date.now());
    for (const viewer of viewers) viewer({ ...rest, sample, changes: [], sensors });
  };
  const timer = isAlive ? setInterval(() => send([]), 1_000) : undefined;
  return served;
}

/** The status of a healthy logger, with the given changes. */
export function makeStatus(changes: Partial<Status> = {}): Status {
  const nowMs = Date.now();
  const connection = { connected: true, text: "connected", sinceMs: nowMs, reconnects: 0 };
  return {
    ...{ version: "1.2.3", startedMs: nowMs - 60_000, nowMs, problem: null },
    ...{ broker: connection, database: connection, oldestWaitingMs: null, spool: null },
    counts: {
      ...{ received: 0, redelivered: 0, found: 0, spooled: 0, waiting: 0 },
      ...{ stored: 0, duplicate: 0, unknown: 0, disabled: 0, rejected: 0, dropped: 0 },
    },
    ...{ lastRejected: null, lastUnknown: null, sensors: [], sensorsLeftOut: 0 },
    history: Array.from({ length: 60 }, (_, index) => makeSample(nowMs - (60 - index) * 1_000)),
    ...changes,
  };
}

function makeSample(timeMs: number): Sample {
  const flow = { received: 61, stored: 60, latencyMs: 1.5, latencyMaxMs: 9.5 };
  return { timeMs, ...flow, waiting: 1, spooled: 0 };
}

/** Sensors that have published just now, with the given changes. */
export function makeSensorStatuses(
  count: number,
  changes: (index: number) => Partial<SensorStatus> = () => ({}),
): SensorStatus[] {
  const nowMs = Date.now();
  return makeSensors(count).map((sensor, index) => ({
    ...sensor,
    label: `Sensor ${index + 1}`,
    ...{ unit: "°C", state: "stored", value: `${index}.123456`, intervalMs: 1_000 },
    ...{ timeMs: nowMs, seenMs: nowMs },
    recent: Array.from({ length: 60 }, (_, step) => 1000 + Math.sin(index + step / 3)),
    ...changes(index),
  }));
}
