// The stream of events resumes by itself after the agent was killed and started again, and says so.

import assert from 'node:assert/strict';
import { assertCalm, opened, step, visit, withBrowser } from './browser.mjs';

await withBrowser(async (browser) => {
  const { page, seen } = await opened(browser);
  await visit(page, '#/events', 'Connected since');
  const shown = (name) => page.getByRole('link', { name, exact: true });
  await step('write before');
  await shown('before').waitFor();
  const state = page.locator('.stream');
  await step('kill the agent');
  await state.getByText('The agent does not answer. The page connects again by itself, and resumes after event ').waitFor();
  await page.getByText('What is shown is from before.').waitFor();
  await step('write meanwhile and start it again');
  await state.getByText('Connected again. The events resumed after event ').waitFor();
  await shown('meanwhile').waitFor();
  await step('write after');
  await shown('after').waitFor();
  for (const name of ['before', 'meanwhile', 'after']) assert.equal(await shown(name).count(), 1, name);
  assert.equal(await page.locator('#link').innerText(), '');

  // The list can be held.
  await page.getByRole('button', { name: 'Hold the list' }).click();
  await step('write while the list is held');
  await page.getByText('The list is held. 1 event came later.').waitFor();
  assert.equal(await shown('later').count(), 0);
  await page.getByRole('button', { name: 'Let the list move again' }).click();
  await shown('later').waitFor();
  await page.getByLabel('Id contains').fill('mean');
  await shown('later').waitFor({ state: 'detached' });
  assert.equal(await shown('meanwhile').count(), 1);
  assertCalm(seen);
});
