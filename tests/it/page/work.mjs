// A mirror at work, one that fails, a document that fails; and a brake that is released by keyboard alone.

import assert from 'node:assert/strict';
import { assertCalm, objections, opened, step, tabTo, visit, withBrowser } from './browser.mjs';

await withBrowser(async (browser) => {
  const { page, seen } = await opened(browser);
  await visit(page, '', '2 of 3 mirrors need attention.');
  const row = (name) => page.locator('table.mirrors tbody tr').filter({ has: page.getByRole('link', { name, exact: true }) });
  const cell = (name, label) => row(name).locator(`td[data-label="${label}"]`);
  assert.match(await cell('shelf', 'State').innerText(), /running/);
  assert.equal(await cell('shelf', 'Documents').innerText(), '101');
  assert.equal(await cell('shelf', 'Failures').innerText(), '1');
  assert.match(await cell('foreign', 'State').innerText(), /parked\n.*thesis\.tex/);
  assert.match(await page.locator('.verdict .problems').innerText(), /Mend it, then start the mirror/);
  assert.equal(await cell('later', 'Documents').innerText(), '–');

  // Filters, which the address keeps.
  await page.getByLabel('State').selectOption('attention');
  await page.getByText('2 of 3 mirrors shown.').waitFor();
  await page.getByLabel('Name or source').fill('shelf');
  await page.getByText('1 of 3 mirrors shown.').waitFor();
  await page.reload();
  await page.getByText('1 of 3 mirrors shown.').waitFor();
  await page.getByLabel('Name or source').fill('');
  await page.getByLabel('State').selectOption('');

  // A failure, with its reason.
  await visit(page, '#/m/shelf/c/shelf', '1 document could not be mirrored.');
  const failure = page.getByRole('row').filter({ hasText: 'broken' });
  await failure.waitFor();
  assert.match(await failure.innerText(), /note\.txt/);

  // A change is counted, drawn and listed while the page is open.
  await visit(page, '#/events', 'Connected');
  await step('write a document');
  await page.getByRole('link', { name: 'fresh', exact: true }).waitFor();
  await page.getByRole('link', { name: 'Overview' }).click();
  await page.waitForFunction(() => /[1-9]/.test(document.querySelector('.legend strong + *, .legend span:nth-child(2)').textContent));
  assert((await page.locator('.chart path').nth(1).getAttribute('d')).length > 0, 'nothing is drawn');

  // Orders.
  await page.getByRole('link', { name: 'shelf', exact: true }).first().click();
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.getByText('Pause: 1 collection: obeyed.').waitFor();
  await page.getByRole('button', { name: 'Resume' }).click();
  await page.getByText('Resume: 1 collection: obeyed.').waitFor();
  await page.getByRole('button', { name: 'Pause' }).waitFor();

  // A verification, with what it found.
  await page.getByRole('button', { name: 'Verify' }).click();
  await page.getByText('Verification found the mirror intact').waitFor();
  await page.getByText(/\d+ documents and 0 attachments were read/).waitFor();

  // A mass deletion is held back, and released by somebody who has only a keyboard.
  await step('delete many documents');
  await page.goto('about:blank');
  await visit(page, '', 'deletions are held back.');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content');
  await page.keyboard.press('Enter');
  await tabTo(page, page.locator('.verdict').getByRole('link', { name: 'shelf' }).first());
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Deletions held back' }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.tagName), 'H1');
  const release = page.getByRole('button', { name: 'Release the deletions of shelf…' });
  await tabTo(page, release);
  await page.keyboard.press('Enter');
  const dialog = page.getByRole('dialog');
  await dialog.waitFor();
  assert.match(await dialog.innerText(), /Delete 30 documents of shelf\?/);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Cancel');
  await page.keyboard.press('Escape');
  await page.getByText('Nothing was released.').waitFor();
  assert(await release.evaluate((button) => button === document.activeElement), 'the focus has not come back');
  await step('nothing is released');
  await page.keyboard.press('Enter');
  await dialog.waitFor();
  // The source deletes more while the dialog is open: the page asks again, with the number of now.
  await step('delete more while the dialog is open');
  assert.match(await dialog.innerText(), /Delete 30 documents of shelf\?/);
  await tabTo(page, dialog.getByRole('button', { name: 'Delete 30 documents' }));
  await page.keyboard.press('Enter');
  await dialog.getByText('40 deletions are held back now, not 30. Nothing is released yet.').waitFor();
  assert.match(await dialog.innerText(), /Delete 40 documents of shelf\?/);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Cancel');
  assert.deepEqual(await objections(page), []);
  await step('still nothing is released');
  await page.keyboard.press('Escape');
  await page.getByText('Nothing was released.').waitFor();
  assert(await release.evaluate((button) => button === document.activeElement), 'the focus has not come back');
  await page.keyboard.press('Enter');
  await dialog.getByText('Delete 40 documents of shelf?').waitFor();
  await tabTo(page, dialog.getByRole('button', { name: 'Delete 40 documents' }));
  await page.keyboard.press('Enter');
  await page.getByText('Applied 40 deletions of shelf.').waitFor();
  await page.getByRole('heading', { name: 'Deletions held back' }).waitFor({ state: 'detached' });
  assertCalm(seen);
});
