// Every view in light and dark, on a desktop and on a phone: axe-core objects to nothing, nothing is wider than
// the screen. With PAGE_SHOTS, writes the screenshots of the documentation into that folder.

import assert from 'node:assert/strict';
import { assertCalm, objections, opened, step, visit, withBrowser } from './browser.mjs';

const { PAGE_SHOTS, PAGE_PLACE, PAGE_FIXTURES } = process.env;

const VIEWS = [
  ['overview', '', 'need attention.'],
  ['mirror', '#/m/shelf', 'Deletions held back'],
  ['parked', '#/m/foreign', 'thesis.tex'],
  ['resting', '#/m/nightly', 'Documents on disk'],
  ['collection', '#/m/shelf/c/shelf', 'Held back since'],
  ['documents', '#/m/library/d/members', 'Folder in the mirror'],
  ['document', '#/m/library/d/members/about%3Alibrary', 'ground floor.png'],
  ['none', '#/nothing/here', 'names no view'],
  ['events', '#/events', 'Connected'],
];

await withBrowser(async (browser) => {
  // The control: axe-core sees what is wrong.
  const control = await opened(browser);
  await control.page.setContent('<main><img src="data:,"><input><p style="color:#bbb;background:#fff">pale</p></main>');
  const found = await objections(control.page).catch((error) => [String(error)]);
  assert(found.some((one) => one.startsWith('image-alt')) && found.some((one) => one.startsWith('label')), found.join('\n'));
  await control.context.close();

  for (const colorScheme of ['light', 'dark']) {
    for (const viewport of [{ width: 1280, height: 800 }, { width: 360, height: 740 }]) {
      const { context, page, seen } = await opened(browser, { colorScheme, viewport, reducedMotion: 'reduce' });
      for (const [name, hash, text] of VIEWS) {
        await visit(page, hash, text);
        if (name === 'events') {
          await step('write a document');
          await page.locator('table.events tbody tr').first().waitFor();
        }
        if (name === 'document') {
          await page.getByRole('button', { name: 'Show plans/ground floor.png' }).click();
          await page.waitForFunction(() => document.querySelector('.shown img')?.naturalWidth > 50);
          await page.locator('.tree summary').nth(1).click();
        }
        const where = `${name}, ${colorScheme}, ${viewport.width}`;
        assert.deepEqual(await objections(page), [], where);
        const wider = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        assert(wider <= 0, `${where}: ${wider} pixels wider than the screen`);
      }
      await visit(page, '#/m/shelf', 'Deletions held back');
      await page.getByRole('button', { name: /^Release the deletions/ }).click();
      await page.getByRole('dialog').waitFor();
      assert.deepEqual(await objections(page), [], `the dialog, ${colorScheme}, ${viewport.width}`);
      assertCalm(seen);
      await context.close();
    }
  }
  if (PAGE_SHOTS) await screenshots(browser);
});

/** Writes the screenshots, in which the folders of the test have the names that they have in the documentation. */
async function screenshots(browser) {
  const { context, page } = await opened(browser, { reducedMotion: 'reduce' });
  await context.route((address) => address.pathname.startsWith('/v1/mirrors') && !address.pathname.includes('/attachments/'), async (route) => {
    const response = await route.fetch();
    const text = await response.text();
    const body = text.replaceAll(PAGE_PLACE, '/var/lib/plainfold').replaceAll(PAGE_FIXTURES, '/srv/feeds');
    await route.fulfill({ response, body });
  });
  await visit(page, '', 'need attention.');
  await step('write for a minute');
  const shots = [
    ['overview', 'light', 1280, '', 'need attention.'],
    ['mirror', 'dark', 1280, '#/m/shelf', 'Deletions held back'],
    ['phone', 'dark', 360, '#/', 'need attention.'],
    ['document', 'light', 1280, '#/m/library/d/members/about%3Alibrary', 'ground floor.png'],
  ];
  for (const [name, colorScheme, width, hash, text] of shots) {
    await page.setViewportSize({ width, height: 800 });
    await page.emulateMedia({ colorScheme });
    await page.evaluate((to) => { location.hash = to || '#/'; }, hash);
    await page.getByText(text).first().waitFor();
    if (name === 'document') {
      await page.getByRole('button', { name: 'Show plans/ground floor.png' }).click();
      await page.waitForFunction(() => document.querySelector('.shown img')?.naturalWidth > 50);
    } else await page.locator('table.stacks tbody tr').first().waitFor();
    await page.waitForTimeout(300);
    await page.screenshot({ path: `${PAGE_SHOTS}/${name}.png`, animations: 'disabled' });
  }
}

