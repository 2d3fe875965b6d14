// An agent with tokens: the page asks for one, keeps it for the tab alone, and says which role is missing.

import assert from 'node:assert/strict';
import { objections, opened, step, tabTo, url, visit, withBrowser } from './browser.mjs';

const { PAGE_READ_TOKEN, PAGE_ADMIN_TOKEN } = process.env;

await withBrowser(async (browser) => {
  const { context, page, seen } = await opened(browser);
  await visit(page, '', 'This agent asks for a token');
  assert.deepEqual(await objections(page), []);
  const input = page.getByLabel('Token', { exact: true });
  assert.equal(await input.getAttribute('type'), 'password');
  await input.fill('wrong');
  await page.keyboard.press('Enter');
  await page.getByText('The agent does not accept the token').waitFor();
  assert.deepEqual(await objections(page), []);
  await input.fill(PAGE_READ_TOKEN);
  await page.keyboard.press('Enter');
  await page.locator('table.mirrors').getByRole('link', { name: 'shelf' }).waitFor();

  // It is sent with each request, also with that for events, and outlives a reload, but not the tab.
  await page.reload();
  await page.locator('table.mirrors').getByRole('link', { name: 'shelf' }).waitFor();
  await visit(page, '#/events', 'Connected since');
  await step('write a document');
  await page.getByRole('link', { name: 'fresh', exact: true }).waitFor();
  assert(!page.url().includes(PAGE_READ_TOKEN), 'the token is in the address');
  const stores = await page.evaluate(() => JSON.stringify([{ ...localStorage }, document.cookie]));
  assert(!stores.includes(PAGE_READ_TOKEN), stores);
  const other = await context.newPage();
  await visit(other, '', 'This agent asks for a token');
  await other.close();

  // A role that does not suffice is named.
  await visit(page, '#/m/shelf', 'Collections');
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.getByText('this needs the role `operate`, and the token has the role `read`').waitFor();

  // An attachment is downloaded with the token.
  await visit(page, '#/m/shelf/d/shelf/with%20file', 'note.txt');
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Download note.txt' }).click()]);
  assert.equal(download.suggestedFilename(), 'note.txt');

  // Another token, by keyboard alone.
  await page.reload();
  await page.getByRole('heading', { name: 'Attachments' }).waitFor();
  await tabTo(page, page.getByRole('button', { name: 'Forget the token' }));
  await page.keyboard.press('Enter');
  await page.getByText('This agent asks for a token').waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await page.keyboard.type(PAGE_ADMIN_TOKEN);
  await page.keyboard.press('Enter');
  await visit(page, '#/m/shelf', 'Collections');
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.getByText('Pause: 1 collection: obeyed.').waitFor();
  const alone = await page.request.get(`${url}/v1/mirrors`);
  assert.equal(alone.status(), 401);
  assert.deepEqual(seen, { ran: [], errors: [], asked: [] });
});
