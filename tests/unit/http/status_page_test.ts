/** The status page in a browser, with a status that the test makes up. */
import { lacks } from "../../support/programs.ts";
import assert from "node:assert/strict";
import { makeSensorStatuses, makeStatus, serve } from "../../fakes/fake_monitor.ts";
import {
  expectAccessible,
  expectToFit,
  names,
  NARROW,
  takePictures,
  text,
  useBrowser,
  waitForText,
} from "../../support/browser.ts";
import { EventReader } from "../../support/event_reader.ts";
import { waitUntil } from "../../support/poll.ts";
import { LOOPBACK } from "../../support/ports.ts";

const browser = useBrowser();

const LONG_LABEL = "Cryostat 3, lower stage, thermometer behind the second radiation shield " +
  "(calibrated in 2024) with_a_name_that_has_no_place_where_it_could_be_broken_into_lines";

Deno.test("on a phone every sensor has its mark, its value and its uuid", {
  ignore: lacks("chromium"),
}, async () => {
  const sensors = makeSensorStatuses(12, (index) =>
    [
      { label: LONG_LABEL },
      { value: "-12345678901234567890", unit: "counts per second and square metre" },
      { label: null },
      { timeMs: Date.now() - 60_000 },
      { label: null, state: "unknown" as const },
      { state: "silent" as const, value: "", timeMs: null, seenMs: null, intervalMs: null },
      { label: LONG_LABEL, value: "-Infinity", unit: "a/unit/without/any/place/to/break/it/in" },
    ][index] ?? {});
  const refusal = { timeMs: Date.now(), topic: "t".repeat(120), reason: "r".repeat(200) };
  const status = makeStatus({ sensors, lastRejected: refusal });
  const { counts } = status;
  await using served = serve({ ...status, counts: { ...counts, rejected: 1, unknown: 1 } }, {
    isAlive: true,
  });
  await using tab = await browser.openTab(served.url);
  const { page } = tab;
  await waitUntil(async () => (await names(page)).length === 12, { what: "the sensors" });
  await takePictures(page, "status_long");
  await expectToFit(page);
  await page.setViewportSize(NARROW);
  await expectToFit(page);
  const rows = page.locator("#sensors tr");
  for (const [index, { uuid }] of sensors.entries()) {
    const row = rows.filter({ hasText: uuid });
    const box = await row.locator("th").boundingBox();
    assert.ok(box && box.x >= 0 && box.x + box.width <= NARROW.width, `row ${index}`);
    assert.ok(await row.getByText(uuid).isVisible(), `uuid of row ${index}`);
  }
  const marks = await page.evaluate(`
    [...document.querySelectorAll("#sensors th")].map((cell) =>
      getComputedStyle(cell, "::before").content[1] + cell.innerText)`) as string[];
  const markOf = ({ uuid } = { uuid: "" }): string | undefined =>
    marks.find((words) => words.includes(uuid))?.charAt(0);
  assert.deepEqual(sensors.slice(2, 6).map(markOf), ["●", "▲", "■", "○"]);
  assert.match(await rows.filter({ hasText: sensors[3]?.uuid ?? "" }).innerText(), /stale, /);
  await expectAccessible(page);
  assert.deepEqual(tab.complaints, []);
});

Deno.test("the plots show their last values, and have a text for screen readers", {
  ignore: lacks("chromium"),
}, async () => {
  await using served = serve(makeStatus(), { isAlive: true });
  await using tab = await browser.openTab(served.url);
  const { page } = tab;
  await waitForText(page, ".plots", /received 61\s+stored 60/);
  const captions = await page.locator("figcaption").allInnerTexts();
  assert.match(captions.join(" "), /median 1\.5\sms\s+maximum 9\.5\sms.*in memory 1\s+on disk 0/s);
  for (const name of ["Messages per second", "Time from reading to commit", "Waiting messages"]) {
    assert.equal(await page.getByRole("img", { name }).count(), 1, name);
  }
  await expectAccessible(page);
});

Deno.test(
  "no sensor is stale while the logger is behind",
  { ignore: lacks("chromium") },
  async () => {
    const sensors = makeSensorStatuses(3, () => ({ timeMs: Date.now() - 60_000 }));
    const status = makeStatus({ sensors });
    await using served = serve({ ...status, counts: { ...status.counts, spooled: 7 } });
    await using tab = await browser.openTab(served.url);
    await waitForText(tab.page, "#sensor-counts", /^3$/);
    served.status = makeStatus({ sensors });
    served.update();
    await waitForText(tab.page, "#sensor-counts", /^3, 3 stale$/);
  },
);

Deno.test(
  "a sensor with a clock ahead becomes stale as well",
  { ignore: lacks("chromium") },
  async () => {
    const sensors = makeSensorStatuses(1, () => ({
      timeMs: Date.now() + 1e9,
      seenMs: Date.now() - 60_000,
    }));
    await using served = serve(makeStatus({ sensors }));
    await using tab = await browser.openTab(served.url);
    await waitForText(tab.page, "#sensor-counts", /^1, 1 stale$/);
  },
);

/** Counts slow calls, which must not happen for each comparison of a sort. */
const COUNT_COMPARISONS = `
  globalThis.slow = 0;
  const { localeCompare } = String.prototype;
  String.prototype.localeCompare = function (...args) {
    slow++;
    return localeCompare.apply(this, args);
  };
  Intl.Collator = new Proxy(Intl.Collator, {
    construct(target, args) {
      slow++;
      return new target(...args);
    },
  });`;

Deno.test(
  "two thousand sensors are shown in pages of a hundred",
  { ignore: lacks("chromium") },
  async () => {
    const status = makeStatus({ sensors: makeSensorStatuses(2_000) });
    await using served = serve(status, { isAlive: true });
    await using tab = await browser.openTab(`${served.url}nothing`);
    const { page } = tab;
    await page.addInitScript(COUNT_COMPARISONS);
    await page.goto(served.url);
    await waitForText(page, "#sensor-counts", /^2,000$/);
    assert.deepEqual((await names(page)).slice(0, 3), ["Sensor 1", "Sensor 2", "Sensor 3"]);
    assert.equal((await names(page)).length, 100);
    await page.locator("#next").click();
    assert.equal((await names(page))[0], "Sensor 101");
    assert.equal(await text(page, "#page-number"), "Page 2 of 20");
    for (const key of ["value", "state", "name"]) {
      await page.locator(`th[data-key="${key}"] button`).click();
    }
    await page.locator("#filter").fill("sensor 1999");
    assert.deepEqual(await names(page), ["Sensor 1999"]);
    assert.ok(Number(await page.evaluate("slow")) <= 1, "each comparison is slow");
    await page.locator("#filter").fill("");
    await takePictures(page, "status_many");
    await expectAccessible(page);
    assert.deepEqual(tab.complaints.filter((complaint) => !complaint.includes("404")), []);
  },
);

Deno.test("two thousand sensors arrive over a slow line", {
  ignore: lacks("chromium"),
}, async () => {
  await using served = serve(makeStatus({ sensors: makeSensorStatuses(2_000) }));
  await using tab = await browser.openTab(served.url);
  const { page } = tab;
  await waitForText(page, "#sensor-counts", /^2,000$/);
  const { counts } = served.status;
  served.status = { ...served.status, counts: { ...counts, received: 7 } };
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Network.enable");
  // The whole status takes longer than the page waits for an event.
  const bytes = JSON.stringify(served.status).length;
  await devtools.send("Network.emulateNetworkConditions", {
    offline: false,
    latency: 20,
    downloadThroughput: bytes / 8,
    uploadThroughput: bytes,
  });
  await setHidden(page, true);
  await setHidden(page, false);
  await waitForText(page, "#about", / 7 received/);
  assert.notEqual(await text(page, "#sensor-counts"), "2,000", "the line is not slow");
  await waitForText(page, "#sensor-counts", /^2,000$/);
  assert.doesNotMatch(await text(page, "#verdict"), /No connection/);
});

/** Simulates a switch to or from another tab, which a headless browser does not have. */
async function setHidden(
  page: Awaited<ReturnType<typeof browser.openTab>>["page"],
  isHidden: boolean,
): Promise<void> {
  await page.evaluate(`
    Object.defineProperty(document, "hidden", { value: ${isHidden}, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));`);
}

Deno.test("a hidden page requests nothing", { ignore: lacks("chromium") }, async () => {
  await using served = serve();
  await using tab = await browser.openTab(served.url);
  const { page } = tab;
  await waitForText(page, "#verdict", /^Both connections work/);
  assert.equal(served.viewers.size, 1);
  await setHidden(page, true);
  await waitUntil(() => {
    // The page disconnects although updates are sent.
    served.update();
    return served.viewers.size === 0;
  }, { what: "the page to disconnect", timeoutMs: 10_000 });
  served.status = makeStatus({ version: "4.5.6" });
  await setHidden(page, false);
  await waitForText(page, "#about", /^Version 4\.5\.6/);
  assert.equal(served.viewers.size, 1);
  assert.deepEqual(tab.complaints, []);
});

Deno.test("the page reports too many viewers, and connects when one disconnects", {
  ignore: lacks("chromium"),
}, async () => {
  await using served = serve();
  await using others = new AsyncDisposableStack();
  for (let viewer = 0; viewer < 49; viewer++) {
    others.use(await EventReader.open(`${served.url}api/events`));
  }
  const last = await EventReader.open(`${served.url}api/events`);
  await using tab = await browser.openTab(served.url);
  await waitForText(tab.page, "#verdict", /^Too many viewers are connected to the logger\./);
  await last[Symbol.asyncDispose]();
  await waitForText(tab.page, "#verdict", /^Both connections work/);
});

Deno.test(
  "the page works below a path of a reverse proxy",
  { ignore: lacks("chromium") },
  async () => {
    await using served = serve(makeStatus({ sensors: makeSensorStatuses(1) }));
    const { promise: port, resolve } = Promise.withResolvers<number>();
    await using _proxy = Deno.serve(
      { hostname: LOOPBACK, port: 0, onListen: (address) => resolve(address.port) },
      async ({ url, method }) => {
        const [, path] = /^\/lab\/kraken\/(.*)$/.exec(new URL(url).pathname) ?? [];
        if (path === undefined) return new Response("not found", { status: 404 });
        return await fetch(`${served.url}${path}`, { method });
      },
    );
    {
      await using tab = await browser.openTab(`http://${LOOPBACK}:${await port}/lab/kraken/`);
      await waitForText(tab.page, "#verdict", /^Both connections work/);
      assert.deepEqual(await names(tab.page), ["Sensor 1"]);
      assert.ok(await tab.page.locator("#rates canvas").isVisible());
      assert.deepEqual(tab.complaints, []);
    }
    // The page must have disconnected before the servers stop.
    await waitUntil(() => served.viewers.size === 0, { what: "the page to disconnect" });
  },
);
