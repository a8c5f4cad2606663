/** A browser for the tests of the status page, and queries of the page. */
import assert from "node:assert/strict";
import axe from "axe-core";
import { type Browser, chromium, type Page } from "playwright-core";
import { waitUntil } from "./poll.ts";
import { findProgram } from "./programs.ts";

/** Disables what a browser does by itself, such as checking for updates. */
const ARGS = [
  ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
];

const TIMEOUT_MS = 180_000;

export const WIDE = { width: 1280, height: 800 };
export const NARROW = { width: 390, height: 844 };

/** Directory for screenshots, for manual inspection. */
const OUTPUT = new URL("../output/", import.meta.url);

/** A page in its own window. The test disposes it. */
export interface Tab extends AsyncDisposable {
  readonly page: Page;
  /** Errors and warnings of the browser. */
  readonly complaints: string[];
}

/** Starts a browser before the tests of the calling file, and closes it after them. */
export function useBrowser(): { openTab(url: string): Promise<Tab> } {
  let browser: Browser | undefined;
  Deno.test.beforeAll(async () => {
    const executablePath = findProgram("chromium");
    if (executablePath === null) return;
    browser = await chromium.launch({ executablePath, args: ARGS });
    Deno.mkdirSync(OUTPUT, { recursive: true });
  });
  Deno.test.afterAll(async () => {
    await browser?.close();
  });
  return {
    async openTab(url): Promise<Tab> {
      assert.ok(browser);
      const page = await browser.newPage({ viewport: WIDE, colorScheme: "light" });
      // A busy machine takes longer than the 30 s that are the default.
      page.setDefaultTimeout(TIMEOUT_MS);
      const complaints: string[] = [];
      page.on("console", (message) => {
        if (["error", "warning"].includes(message.type())) complaints.push(message.text());
      });
      page.on("pageerror", (error) => complaints.push(error.message));
      await page.goto(url);
      return { page, complaints, [Symbol.asyncDispose]: () => page.close() };
    },
  };
}

export async function text(page: Page, selector: string): Promise<string> {
  return await page.locator(selector).innerText();
}

/** Waits until the text of an element matches. */
export async function waitForText(page: Page, selector: string, pattern: RegExp): Promise<void> {
  let last = "";
  await waitUntil(async () => pattern.test(last = await text(page, selector)), {
    what: `${pattern} in ${selector}`,
    timeoutMs: TIMEOUT_MS,
  }).catch((error) => {
    throw new Error(`${selector} says '${last}'`, { cause: error });
  });
}

/** The names of the sensors in the table, from top to bottom. */
export async function names(page: Page): Promise<string[]> {
  return await page.locator("#sensors .name").allInnerTexts();
}

/** The cells of a sensor in the table, without its name. */
export async function row(page: Page, name: string): Promise<string[]> {
  return await page.locator("#sensors tr", { hasText: name }).first().locator("td")
    .allInnerTexts();
}

/** Takes screenshots of the current page: wide and narrow, light and dark. */
export async function takePictures(page: Page, name: string): Promise<void> {
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    for (const [form, viewport] of Object.entries({ wide: WIDE, narrow: NARROW })) {
      await page.setViewportSize(viewport);
      const path = new URL(`${name}_${form}_${colorScheme}.png`, OUTPUT).pathname;
      await page.screenshot({ path });
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(WIDE);
}

/** Asserts that axe-core finds no accessibility violation, light or dark. */
export async function expectAccessible(page: Page): Promise<void> {
  await page.evaluate(axe.source);
  for (const colorScheme of ["dark", "light"] as const) {
    await page.emulateMedia({ colorScheme });
    let violations: unknown;
    // The browser applies the colors a moment after the call.
    await waitUntil(async () => {
      violations = await page.evaluate(async () => {
        // deno-lint-ignore no-explicit-any
        const { violations } = await (globalThis as any).axe.run();
        // deno-lint-ignore no-explicit-any
        return violations.map(({ id, nodes }: any) => `${id}: ${nodes[0].html}`);
      });
      return (violations as string[]).length === 0;
    }, { timeoutMs: 20_000 }).catch(() => {});
    assert.deepEqual(violations, [], colorScheme);
  }
}

/** Asserts that no element extends beyond the edge of the window. */
export async function expectToFit(page: Page): Promise<void> {
  let beyond: unknown;
  // The plots adapt to the window a little later.
  await waitUntil(async () => {
    beyond = await page.evaluate(`
      [document.documentElement, ...document.querySelectorAll("body *")]
        .filter(({ scrollWidth, clientWidth }) => clientWidth > 1 && scrollWidth > clientWidth + 1)
        .map(({ tagName, id, className }) => tagName + " " + id + " " + className)`);
    return (beyond as string[]).length === 0;
  }, { timeoutMs: 5_000 }).catch(() => assert.deepEqual(beyond, []));
}
