// A mirror of many collections: they are shown in pages, which a keyboard turns.

import assert from 'node:assert/strict';
import { assertCalm, opened, visit, withBrowser } from './browser.mjs';

await withBrowser(async (browser) => {
  const { page, seen } = await opened(browser);
  await visit(page, '#/m/many', '120 collections, page 1 of 3.');
  const first = () => page.locator('table.collections tbody th').first().innerText();
  const focused = () => page.evaluate(() => document.activeElement.textContent);
  const rows = page.locator('table.collections tbody tr');
  assert.equal(await first(), 'year/1000');
  assert.equal(await rows.count(), 50);

  // The buttons below the table show the next page from its top. There, the same button has the focus.
  await page.getByRole('button', { name: 'Next page' }).last().click();
  await page.getByText('120 collections, page 2 of 3.').waitFor();
  assert.equal(await first(), 'year/1050');
  assert.equal(await focused(), 'Next page');
  assert(await rows.first().evaluate((row) => row.getBoundingClientRect().top > 0), 'the page is not shown from its top');
  await page.keyboard.press('Enter');
  await page.getByText('120 collections, page 3 of 3.').waitFor();
  assert.equal(await rows.count(), 20);
  // There is no further page.
  assert.equal(await focused(), 'Previous page');
  await page.reload();
  await page.getByText('120 collections, page 3 of 3.').waitFor();
  assert.equal(await first(), 'year/1100');

  await page.getByLabel('Name').fill('1119');
  await page.getByText('1 of 120 collections.').waitFor();
  assert.equal(await first(), 'year/1119');
  assert.equal(await page.getByRole('button', { name: 'Next page' }).count(), 0);
  assertCalm(seen);
});
