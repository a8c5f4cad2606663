/** The status page in a browser: what it shows, during outages and restarts too. */
import { lacks } from "../support/programs.ts";
import assert from "node:assert/strict";
import { startBroker, type TestBroker } from "../support/broker.ts";
import {
  expectAccessible,
  expectToFit,
  names,
  NARROW,
  row,
  takePictures,
  text,
  useBrowser,
  waitForText,
  WIDE,
} from "../support/browser.ts";
import { startDaemon } from "../support/daemon.ts";
import { type LoggerEnv, loggerEnv, startLogger } from "../support/logger_process.ts";
import { waitUntil } from "../support/poll.ts";
import { findFreePort } from "../support/ports.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
import { publishPayloads, publishReadings } from "../support/publisher.ts";
import { makeReadings } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import { SENSORS, stopCleanly, usePostgres } from "../support/harness.ts";

const postgres = usePostgres();
const browser = useBrowser();

interface Scene extends AsyncDisposable {
  readonly database: TestDatabase;
  readonly broker: TestBroker;
  readonly env: LoggerEnv;
  readonly url: string;
}

/** Services, and the environment of a logger with a status page. */
async function setScene(): Promise<Scene> {
  const stack = new AsyncDisposableStack();
  const database = await postgres.createDatabase();
  const broker = stack.use(await startBroker());
  const directory = stack.use(withTemporaryDirectory());
  const port = findFreePort();
  const env = loggerEnv({ database, broker }, {
    HTTP_PORT: String(port),
    SPOOL_DIRECTORY: directory.path,
  });
  return {
    ...{ database, broker, env, url: `http://127.0.0.1:${port}/` },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** Collects in `news` the texts for screen readers. */
const COUNT_NEWS = `
  globalThis.news = [];
  new MutationObserver(() => news.push(document.querySelector("[role=status]").textContent))
    .observe(document.querySelector("[role=status]"), { childList: true, characterData: true });`;

const LABELS = ["Oven", "Cryostat", "Laser", "Vacuum"];

Deno.test(
  "the status page shows values, sorts, filters, and marks stale sensors",
  { ignore: lacks("chromium") },
  async () => {
    await using scene = await setScene();
    const { database, broker, env, url } = scene;
    const sensors = LABELS.map((label, index) => ({
      ...SENSORS[index] as typeof SENSORS[0],
      label,
    }));
    await database.registerSensors(sensors as { uuid: string; sid: number; label: string }[]);
    const unknown = { uuid: crypto.randomUUID(), sid: 3 };
    await using logger = startLogger(env);
    await logger.waitForLine("status page at");
    await logger.waitForLine("Connected to database");
    await logger.waitForLine("Connected to MQTT broker");
    await using tab = await browser.openTab(url);
    const { page } = tab;
    await waitForText(page, "#verdict", /^Both connections work, no message is waiting\.$/);
    await waitForText(page, "#sensor-counts", /^10, 10 silent since the start$/);
    assert.deepEqual((await row(page, "Oven")).slice(0, 2), ["–", "–"]);
    await expectAccessible(page);

    let value = 0;
    await using daemon = startDaemon(broker, {
      qos: 1,
      rate: 40,
      message: (index) => {
        // The last sensor stops publishing after a while.
        const sensor = sensors[index % (index < 200 ? 4 : 3)] as typeof SENSORS[0];
        const payload = JSON.stringify({
          ...{ timestamp: Date.now() / 1000, uuid: sensor?.uuid, sid: sensor?.sid, unit: "°C" },
          value: ++value + (index % 4) * 1000,
        });
        return { topic: "sensors/test", payload };
      },
    });
    await publishReadings(broker, makeReadings({ count: 3, sensors: [unknown] }));
    await publishPayloads(broker, ["garbage"]);
    await waitUntil(async () => (await names(page)).length === 11, { what: "all sensors" });
    await waitUntil(async () => (await row(page, "Oven"))[0] !== "–", { what: "the first value" });
    assert.deepEqual(
      (await names(page)).filter((name) => LABELS.includes(name)),
      LABELS.toSorted(),
    );
    const [first] = await row(page, "Oven");
    assert.match(first ?? "", /^\d+ °C$/);
    await waitUntil(async () => (await row(page, "Oven"))[0] !== first, { what: "another value" });
    await waitForText(page, "#refused .state", /^1 rejected, 3 of unknown sensors$/);
    assert.match(
      await text(page, "#refused .detail"),
      /^Last rejected message, .* ago on 'sensors\/test'.*JSON/m,
    );
    assert.match(
      await text(page, "#refused .detail"),
      /^Last message of an unknown sensor, .* is not registered$/m,
    );
    assert.equal((await row(page, unknown.uuid)).at(-1), "not registered");
    await waitForText(
      page,
      "#verdict",
      /^Both connections work, but 1 message was rejected, 1 sensor is not registered\.$/,
    );

    // On a busy machine a publishing sensor, too, may be stale for a moment.
    await waitUntil(async () => {
      const states = [await row(page, "Vacuum"), await row(page, "Oven")].map((cells) =>
        cells.at(-1)
      );
      return states.join() === "stale,stored";
    }, { what: "only the silent sensor to be stale", timeoutMs: 40_000 });
    await waitForText(
      page,
      "#sensor-counts",
      /^11, 1 stale, 1 not registered, 6 silent since the start$/,
    );
    await waitForText(page, "#verdict", /, 1 sensor is stale\.$/);
    await takePictures(page, "status");
    await expectAccessible(page);
    await page.setViewportSize(NARROW);
    await expectToFit(page);
    await expectAccessible(page);
    await page.setViewportSize(WIDE);

    // By keyboard: the header of the values, twice.
    const header = page.locator('th[data-key="value"]');
    await header.locator("button").focus();
    await page.keyboard.press("Enter");
    assert.equal(await header.getAttribute("aria-sort"), "ascending");
    await page.keyboard.press("Enter");
    assert.equal(await header.getAttribute("aria-sort"), "descending");
    const numbers = (await page.locator("#sensors td:nth-child(2)").allInnerTexts())
      .filter((cell) => !cell.startsWith("–"))
      .map((cell) => Number(cell.split(" ")[0]));
    assert.equal(numbers.length, 5);
    assert.deepEqual(numbers, numbers.toSorted((a, b) => b - a));
    await page.locator("#filter").fill("cryo");
    assert.deepEqual(await names(page), ["Cryostat"]);
    await page.locator("#filter").fill("nothing of that name");
    await waitForText(page, "#no-sensors", /No sensor matches/);
    assert.deepEqual(tab.complaints, []);
    await daemon.finish();
    await stopCleanly(logger);
  },
);

Deno.test("the status page reports outages, and reconnects after a restart of the logger", {
  ignore: lacks("chromium"),
}, async () => {
  await using scene = await setScene();
  const { broker, env, url } = scene;
  await using tab = await (async () => {
    await using logger = startLogger(env);
    await logger.waitForLine("status page at");
    await logger.waitForLine("Connected to database");
    await logger.waitForLine("Connected to MQTT broker");
    const tab = await browser.openTab(url);
    const { page } = tab;
    await waitForText(page, "#verdict", /^Both connections work/);
    await page.evaluate(COUNT_NEWS);
    await postgres.server.stop();
    await publishReadings(broker, makeReadings({ count: 5 }));
    await waitForText(
      page,
      "#verdict",
      /^The database has been unavailable for .*\. 5 messages are waiting; noth/,
    );
    await waitForText(page, "#spool .state", /^5 messages, the oldest for /);
    assert.match(await text(page, "#database .state"), /^Not connected for/);
    const [first] = /for \S+\ss/.exec(await text(page, "#verdict")) ?? [];
    await waitUntil(async () => !(await text(page, "#verdict")).includes(String(first)), {
      what: "the time to go on",
    });
    // The seconds are shown, but not in the text for screen readers.
    assert.deepEqual(await page.evaluate("news"), ["The database is unavailable."]);
    await takePictures(page, "status_database_away");
    await postgres.server.start();
    await waitForText(page, "#verdict", /^Both connections work/);
    await waitForText(page, "#database .detail", /, reconnected 1×$/);
    await broker.stop();
    await waitForText(
      page,
      "#verdict",
      /^No connection to the broker for .*\. No messages are received\.$/,
    );
    await broker.start();
    await waitForText(page, "#verdict", /^Both connections work/);
    assert.deepEqual(tab.complaints, []);
    await logger.kill();
    await waitForText(page, "#verdict", /^No connection to the logger\. Retrying …$/);
    return tab;
  })();
  const { page } = tab;
  await takePictures(page, "status_logger_away");
  await using logger = startLogger(env);
  await waitForText(page, "#verdict", /^Both connections work/);
  await publishReadings(broker, makeReadings({ count: 3, startTimeUs: 5_000_000n }));
  await waitForText(page, "#about", / 3 stored/);
  // While the logger was down, the browser reports failed requests.
  const others = tab.complaints.filter((complaint) => !/ERR_|Failed to load/.test(complaint));
  assert.deepEqual(others, []);
  await stopCleanly(logger);
});
