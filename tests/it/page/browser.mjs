// What the scripts share: a headless Chromium, detectors of everything that must not happen, and steps in
// which the Rust test does its part.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const { PAGE_URL, PAGE_CHROMIUM, PAGE_PACKAGES, PLAINFOLD_PAGE_FILES } = process.env;
const { chromium } = createRequire(`${PAGE_PACKAGES}/`)('playwright-core');

export const url = PAGE_URL;

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Lets the Rust test do something, and waits until it has. */
export async function step(name) {
  console.log(`step: ${name}`);
  const { done } = await answers.next();
  assert(!done, 'the test has ended');
}

/** Runs `work` with a browser, and ends it whatever happens. */
export async function withBrowser(work) {
  const browser = await chromium.launch({ executablePath: PAGE_CHROMIUM, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
  try {
    await work(browser);
    console.log('all is as it should be');
  } catch (error) {
    console.error(error);
    for (const page of browser.contexts().flatMap((context) => context.pages())) {
      console.error(page.url(), await page.locator('body').innerText({ timeout: 5000 }).catch(String));
    }
    process.exitCode = 1;
  } finally {
    await browser.close();
    process.stdin.destroy();
  }
}

/**
 * A page with detectors: `seen.ran` has whatever a foreign script has done, `seen.errors` the errors of the
 * page itself, `seen.asked` the addresses outside of the agent that were asked for.
 */
export async function opened(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  context.setDefaultTimeout(60_000);
  if (PLAINFOLD_PAGE_FILES) await context.route((address) => address.href.startsWith(url), changed);
  const page = await context.newPage();
  const seen = { ran: [], errors: [], asked: [] };
  page.on('dialog', async (dialog) => {
    seen.ran.push(`${dialog.type()}: ${dialog.message()}`);
    await dialog.dismiss();
  });
  page.on('popup', (popup) => seen.ran.push(`a window: ${popup.url()}`));
  page.on('pageerror', (error) => seen.errors.push(String(error.stack)));
  page.on('console', (message) => {
    // Chromium reports answers with an error status; the page shows these.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) seen.errors.push(message.text());
  });
  page.on('request', (request) => {
    const address = request.url();
    if (!address.startsWith(url) && !address.startsWith('blob:') && !/^chrome(-extension)?:/.test(address)) seen.asked.push(address);
  });
  return { context, page, seen };
}

/** With PLAINFOLD_PAGE_FILES=src/web, changes of the page are tried without a new build of the agent. */
async function changed(route) {
  const { pathname } = new URL(route.request().url());
  const file = pathname === '/' ? 'index.html' : pathname.match(/^\/page\/([a-z]+\.[a-z]+)$/)?.[1];
  if (!file) return route.continue();
  const response = await route.fetch();
  await route.fulfill({ response, body: readFileSync(`${PLAINFOLD_PAGE_FILES}/${file}`) });
}

/** Nothing has happened that must not. */
export function assertCalm(seen) {
  assert.deepEqual(seen, { ran: [], errors: [], asked: [] });
}

/** Shows a view of the page, and waits until it shows something. */
export async function visit(page, hash, text) {
  await page.goto(`${url}/${hash}`);
  await page.getByText(text).first().waitFor();
}

const axe = readFileSync(`${PAGE_PACKAGES}/axe-core/axe.min.js`, 'utf8');

/** What axe-core objects to on the page, in a line each. */
export async function objections(page) {
  await page.evaluate(axe);
  const { violations, passes } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  assert(passes.length > 10, 'axe-core has looked at almost nothing');
  return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map(({ target, failureSummary }) => `${target} ${failureSummary}`).join('; ')}`);
}

/** Presses Tab until the element that has the focus is the one that `locator` names. */
export async function tabTo(page, locator, most = 60) {
  for (let pressed = 0; pressed < most; pressed += 1) {
    await page.keyboard.press('Tab');
    if (await locator.evaluate((element) => element === document.activeElement)) {
      const outline = await locator.evaluate((element) => getComputedStyle(element).outlineStyle);
      assert.notEqual(outline, 'none', 'the focus cannot be seen');
      return;
    }
  }
  assert.fail(`${locator} is not reached by ${most} presses of Tab`);
}
