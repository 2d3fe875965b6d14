// The stream of events resumes by itself after the agent was killed and started again, and says so.

import assert from 'node:assert/strict';
import { assertCalm, opened, step, visit, withBrowser } from './browser.mjs';

await withBrowser(async (browser) => {
  const { page, seen } = await opened(browser);
  const resumed = [];
  page.on('request', (request) => {
    if (request.url().endsWith('/v1/events')) resumed.push(request.headers()['last-event-id'] ?? null);
  });
  const notices = page.locator('main > ul.problems .what');
  await visit(page, '#/events', 'Connected since');
  const shown = (name) => page.getByRole('link', { name, exact: true });
  const state = page.locator('.stream');

  // The agent says where the stream is before any event comes. The page resumes there.
  await step('kill the agent before an event came');
  await state.getByText(/and resumes after event \d+ of shelf\.$/).waitFor();
  const place = (await state.innerText()).match(/event (\d+) of shelf/)[1];
  await step('write unseen and start it again');
  await shown('unseen').waitFor();
  assert.equal(resumed[0], null);
  assert.deepEqual([...new Set(resumed.slice(1))], [`shelf:${place}`]);
  assert.equal(await shown('first').count(), 0);

  await step('write before');
  await shown('before').waitFor();
  await step('kill the agent');
  await state.getByText('The agent does not answer. The page connects again by itself, and resumes after event ').waitFor();
  await page.getByText('What is shown is from before.').waitFor();
  await step('write meanwhile and start it again');
  await state.getByText('Connected again. The events resumed after event ').waitFor();
  await shown('meanwhile').waitFor();
  await step('write after');
  await shown('after').waitFor();
  for (const name of ['unseen', 'before', 'meanwhile', 'after']) assert.equal(await shown(name).count(), 1, name);
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
  await page.getByLabel('Id contains').fill('');
  await shown('after').waitFor();
  // A mirror at work causes no notice.
  assert.deepEqual(await notices.allInnerTexts(), []);

  // The events of another mirror of the same name, whose numbers are lower, are new.
  await step('kill the agent');
  await state.getByText('The agent does not answer.').waitFor();
  const before = resumed.length;
  await step('replace the mirror by one of the same name');
  await shown('of another mirror').waitFor();
  await step('write into the new mirror');
  await shown('newest').waitFor();
  for (const name of ['unseen', 'after', 'later', 'of another mirror', 'newest']) assert.equal(await shown(name).count(), 1, name);
  const numbers = resumed.slice(before).map((position) => Number(position.split(':')[1]));
  assert(numbers.length > 0 && numbers.every((number) => number > 4), `${numbers}`);
  assert.deepEqual(await notices.allInnerTexts(), ['Another mirror has the name shelf now. Its events are shown from the oldest one in its journal.']);
  assertCalm(seen);

  await says(browser, [
    ['lagged', { mirror: 'shelf', lagged: 1200 }, 'The page reads too slowly. It missed 1,200 events of shelf, which follow now from the journal.'],
    ['expired', { mirror: 'shelf', expired: { first: 6, last: 900 } }, 'The journal no longer holds the events 6 to 900 of shelf. This list lacks them; the documents in the mirror are not affected.'],
    ['passed', { passed: 1200 }, 'Up to event 1,200, there are no more events for this page.'],
    ['surprise\u202e', { news: [] }, 'The agent reports something that this page does not know: surprise\\u202e. Reload the page.'],
    ['expired', { mirror: 'shelf' }, 'The agent reports something that this page does not know: expired. Reload the page.'],
  ]);
});

/** What the page says of notices that a test cannot cause, and that it still takes in events after them. */
async function says(browser, notices) {
  const { context, page, seen } = await opened(browser);
  let answers = 0;
  await context.route((address) => address.pathname === '/v1/events', (route) => {
    answers += 1;
    if (answers > 1) return route.abort();
    const event = { mirror: 'shelf', event: 7, collectionName: 'shelf', documentId: 'after the notices', deleted: false, at: new Date().toISOString() };
    const told = [['resume', { resume: 'shelf:6' }], ...notices, ['written', event]];
    const body = told.map(([name, data]) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`).join('');
    return route.fulfill({ contentType: 'text/event-stream', body });
  });
  await visit(page, '#/events', 'after the notices');
  const said = await page.locator('main > ul.problems .what').allInnerTexts();
  assert.deepEqual(said, notices.map(([, , text]) => text));
  assertCalm(seen);
  await context.close();
}
