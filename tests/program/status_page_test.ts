/** The status page in a browser: what it shows, and that it goes on showing it. */
import assert from "node:assert/strict";
import { type Browser, chromium, type Page } from "playwright-core";
import axe from "axe-core";
import { startBroker, type TestBroker } from "../services/broker.ts";
import { startDaemon } from "../services/daemon.ts";
import { type LoggerEnv, loggerEnv, startLogger } from "../services/logger_process.ts";
import { waitUntil } from "../services/poll.ts";
import { findFreePort } from "../services/ports.ts";
import type { TestDatabase } from "../services/postgres_database.ts";
import { publishPayloads, publishReadings } from "../services/publisher.ts";
import { makeReadings, makeSensors } from "../services/readings.ts";
import { withTemporaryDirectory } from "../services/temporary_directory.ts";
import { SENSORS, stopCleanly, usePostgres } from "./harness.ts";

const CHROMIUM = "/usr/bin/chromium";

/** Where there is no browser, its tests are left out, except in CI: there they fail. */
const ignore = !existsSync(CHROMIUM) && Deno.env.get("CI") !== "true";

/** Nothing that a browser does by itself: looking for updates, say. */
const ARGS = [
  ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
];

const WIDE = { width: 1280, height: 800 };
const NARROW = { width: 390, height: 844 };

/** Pictures of the page, for somebody to look at. */
const OUTPUT = new URL("../output/", import.meta.url);

const postgres = usePostgres();
let browser: Browser | undefined;

Deno.test.beforeAll(async () => {
  if (!ignore) browser = await chromium.launch({ executablePath: CHROMIUM, args: ARGS });
});
Deno.test.afterAll(async () => {
  await browser?.close();
});

function existsSync(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

interface Tab extends AsyncDisposable {
  readonly page: Page;
  /** What the browser complains about. */
  readonly complaints: string[];
}

async function openTab(
  url: string,
  options: { readonly viewport?: typeof WIDE } = {},
): Promise<Tab> {
  assert.ok(browser);
  const page = await browser.newPage({ viewport: WIDE, colorScheme: "light", ...options });
  const complaints: string[] = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  await page.goto(url);
  return { page, complaints, [Symbol.asyncDispose]: () => page.close() };
}

async function text(page: Page, selector: string): Promise<string> {
  return await page.locator(selector).innerText();
}

async function waitForText(page: Page, selector: string, pattern: RegExp): Promise<void> {
  let last = "";
  await waitUntil(async () => pattern.test(last = await text(page, selector)), {
    what: `${pattern} in ${selector}`,
    timeoutMs: 40_000,
  }).catch((error) => {
    throw new Error(`${selector} says '${last}'`, { cause: error });
  });
}

/** The names of the sensors in the table, from top to bottom. */
async function names(page: Page): Promise<string[]> {
  return await page.locator("#sensors th").allInnerTexts();
}

async function row(page: Page, name: string): Promise<string[]> {
  return await page.locator("#sensors tr", { hasText: name }).first().locator("td")
    .allInnerTexts();
}

async function takePicture(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: new URL(`${name}.png`, OUTPUT).pathname });
}

/** Asserts that nothing is found that keeps people from using the page. */
async function expectAccessible(page: Page): Promise<void> {
  await page.evaluate(axe.source);
  const violations = await page.evaluate(async () => {
    // deno-lint-ignore no-explicit-any
    const { violations } = await (globalThis as any).axe.run();
    // deno-lint-ignore no-explicit-any
    return violations.map(({ id, nodes }: any) => `${id}: ${nodes[0].html}`);
  });
  assert.deepEqual(violations, []);
}

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

const LABELS = ["Oven", "Cryostat", "Laser", "Vacuum"];

Deno.test(
  "the status page shows values, sorts, filters, and marks what is stale",
  { ignore },
  async () => {
    Deno.mkdirSync(OUTPUT, { recursive: true });
    await using scene = await setScene();
    const { database, broker, env, url } = scene;
    const sensors = LABELS.map((label, index) => ({
      ...SENSORS[index] as typeof SENSORS[0],
      label,
    }));
    await database.registerSensors(sensors as { uuid: string; sid: number; label: string }[]);
    const unknown = { uuid: crypto.randomUUID(), sid: 3 };
    await using logger = startLogger(env);
    await logger.waitForLine("Status page at");
    await logger.waitForLine("Connected to database");
    await logger.waitForLine("Connected to MQTT broker");
    await using tab = await openTab(url);
    const { page } = tab;
    await waitForText(page, "#verdict", /^Everything that came in is stored\.$/);
    await waitForText(page, "#no-sensors", /No reading has reached/);
    await expectAccessible(page);

    let value = 0;
    await using daemon = startDaemon(broker, {
      qos: 1,
      rate: 40,
      message: (index) => {
        // The last sensor falls silent after a while.
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
    await waitUntil(async () => (await names(page)).length === 5, { what: "five sensors" });
    assert.deepEqual(
      (await names(page)).filter((name) => LABELS.includes(name)),
      LABELS.toSorted(),
    );
    const [first] = await row(page, "Oven");
    assert.match(first ?? "", /^\d+ °C$/);
    await waitUntil(async () => (await row(page, "Oven"))[0] !== first, { what: "another value" });
    await waitForText(page, "#refused .state", /^1 rejected, 3 of unknown sensors$/);
    assert.match(await text(page, "#refused .detail"), /is not registered .*garbage|JSON/s);
    assert.equal((await row(page, unknown.uuid.slice(0, 8))).at(-1), "not registered");

    await waitUntil(async () => (await row(page, "Vacuum")).at(-1) === "stale", {
      what: "the silent sensor to be marked",
      timeoutMs: 40_000,
    });
    assert.equal((await row(page, "Oven")).at(-1), "stored");
    assert.match(await text(page, "#sensor-counts"), /^5, 1 stale/);
    await takePicture(page, "status_wide_light");
    await expectAccessible(page);
    await page.emulateMedia({ colorScheme: "dark" });
    await takePicture(page, "status_wide_dark");
    await expectAccessible(page);
    await page.setViewportSize(NARROW);
    await takePicture(page, "status_narrow_dark");
    const overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth");
    assert.ok(Number(overflow) <= 0, `the page is ${overflow} px wider than the phone`);
    await page.emulateMedia({ colorScheme: "light" });
    await page.locator("#sensors").scrollIntoViewIfNeeded();
    await takePicture(page, "status_narrow_light");
    await page.setViewportSize(WIDE);

    // By keyboard: the header of the values, twice.
    const header = page.locator('th[data-key="value"]');
    await header.locator("button").focus();
    await page.keyboard.press("Enter");
    assert.equal(await header.getAttribute("aria-sort"), "ascending");
    await page.keyboard.press("Enter");
    assert.equal(await header.getAttribute("aria-sort"), "descending");
    const numbers = (await page.locator("#sensors td:nth-child(2)").allInnerTexts())
      .map((cell) => Number(cell.split(" ")[0]));
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

Deno.test("the status page says what is away, and finds the logger again after its restart", {
  ignore,
}, async () => {
  await using scene = await setScene();
  const { broker, env, url } = scene;
  await using tab = await (async () => {
    await using logger = startLogger(env);
    await logger.waitForLine("Status page at");
    await logger.waitForLine("Connected to database");
    await logger.waitForLine("Connected to MQTT broker");
    const tab = await openTab(url);
    const { page } = tab;
    await waitForText(page, "#verdict", /^Everything/);
    await postgres.server.stop();
    await publishReadings(broker, makeReadings({ count: 5 }));
    await waitForText(
      page,
      "#verdict",
      /^The database has been away for .*\. 5 messages wait; noth/,
    );
    await waitForText(page, "#spool .state", /^5 messages, the oldest for /);
    assert.match(await text(page, "#database .state"), /^Not connected for/);
    await takePicture(page, "status_database_away");
    await postgres.server.start();
    await waitForText(page, "#verdict", /^Everything/);
    await waitForText(page, "#database .detail", /1× connected again/);
    await broker.stop();
    await waitForText(page, "#verdict", /^No connection to the broker for .*: nothing comes in/);
    await broker.start();
    await waitForText(page, "#verdict", /^Everything/);
    assert.deepEqual(tab.complaints, []);
    await logger.kill();
    await waitForText(page, "#verdict", /^No connection to the logger\. Trying again …$/);
    return tab;
  })();
  const { page } = tab;
  await takePicture(page, "status_logger_away");
  await using logger = startLogger(env);
  await waitForText(page, "#verdict", /^Everything/);
  await publishReadings(broker, makeReadings({ count: 3, startTimeUs: 5_000_000n }));
  await waitForText(page, "#about", / 3 stored/);
  // What the browser says of the time without a logger is that nothing answered.
  const others = tab.complaints.filter((complaint) => !/ERR_|Failed to load/.test(complaint));
  assert.deepEqual(others, []);
  await stopCleanly(logger);
});

Deno.test(
  "the status page shows two thousand sensors a hundred at a time",
  { ignore },
  async () => {
    await using scene = await setScene();
    const { database, broker, env, url } = scene;
    const sensors = makeSensors(2_000, 7);
    await database.registerSensors(sensors.map((sensor, index) => ({
      ...sensor,
      label: `Sensor ${index + 1}`,
    })));
    await using logger = startLogger(env);
    await logger.waitForLine("Status page at");
    await using tab = await openTab(url);
    const { page } = tab;
    await publishReadings(broker, makeReadings({ count: 2_000, sensors }));
    await waitForText(page, "#sensor-counts", /^2,000/);
    await waitUntil(async () => (await names(page))[0] === "Sensor 1", { what: "the labels" });
    assert.equal((await names(page)).length, 100);
    assert.deepEqual((await names(page)).slice(0, 3), ["Sensor 1", "Sensor 2", "Sensor 3"]);
    await page.locator("#next").click();
    assert.equal((await names(page))[0], "Sensor 101");
    assert.equal(await text(page, "#page-number"), "Page 2 of 20");
    await page.locator("#filter").fill("sensor 1999");
    assert.deepEqual(await names(page), ["Sensor 1999"]);
    await expectAccessible(page);
    assert.deepEqual(tab.complaints, []);
    await stopCleanly(logger);
  },
);
