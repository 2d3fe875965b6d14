// Documents that want to run scripts, to look like something else, or to stop the page. They can do nothing;
// and a page that took an id for markup would be found out by the same detectors.

import assert from 'node:assert/strict';
import { assertCalm, opened, step, url, visit, withBrowser } from './browser.mjs';

const id = process.env.PAGE_HOSTILE;

/** A character as the page writes it out. */
function escaped(one) {
  const code = one.codePointAt(0).toString(16);
  return code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, '0')}`;
}

await withBrowser(async (browser) => {
  // The control: the detectors see what such an id does where it is taken for markup.
  const control = await opened(browser);
  await control.page.setContent(`<p>${id}</p>`);
  await control.page.waitForFunction(() => document.documentElement.dataset.ran === 'image');
  assert(control.seen.ran.length > 0, JSON.stringify(control.seen));
  await control.context.close();

  const { page, seen } = await opened(browser, { acceptDownloads: true });
  await visit(page, '#/m/hostile/d/hostile', 'Folder in the mirror');
  await page.getByRole('link', { name: '<img src=x' }).click();
  await page.getByRole('heading', { name: 'Attachments' }).waitFor();
  const title = await page.getByRole('heading', { level: 1 }).innerText();
  // The character that turns the direction of the text is written out.
  assert.equal(title, id.replace('\u202e', '\\u202e'));
  const tree = page.locator('.tree');
  await tree.getByText('12345678901234567890.10').waitFor();
  assert.match(await tree.innerText(), /"<\/script><script>alert/);
  await tree.getByText('items').click();
  await tree.getByRole('button', { name: 'Show the next 100' }).click();
  await tree.getByText('150: ').waitFor();

  // Attachments: an image and a PDF file are shown, everything else is only downloaded.
  const buttons = await page.getByRole('button', { name: /^Show (?!the)/ }).allInnerTexts();
  assert.equal(buttons.length, 3);
  await page.getByRole('button', { name: 'Show plan.png' }).click();
  const image = page.getByRole('img', { name: 'plan.png' });
  await image.waitFor();
  await page.waitForFunction(() => document.querySelector('.shown img').naturalWidth > 50);
  await page.getByRole('button', { name: 'Show rules.pdf' }).click();
  const frame = page.locator('iframe');
  await frame.waitFor();
  assert.match(await frame.getAttribute('src'), /^blob:/);
  await page.getByRole('button', { name: 'Show lies.png' }).click();
  await page.getByText('The browser cannot show this image.').waitFor();
  for (const name of ['page.html', 'picture.svg']) {
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: `Download ${name}` }).click()]);
    assert.equal(download.suggestedFilename(), name);
  }

  // Opened by their addresses, they are downloaded as well, and the answers permit nothing.
  const below = `${url}/v1/mirrors/hostile/collections/hostile/documents/${encodeURIComponent(id)}/attachments`;
  for (const name of ['page.html', 'picture.svg']) {
    const [download] = await Promise.all([page.waitForEvent('download'), page.goto(`${below}/${name}`).catch((error) => assert.match(String(error), /Download is starting|ERR_ABORTED/))]);
    assert(download.url().endsWith(name));
    const answer = await page.request.get(`${below}/${name}`);
    const headers = answer.headers();
    assert.equal(headers['content-type'], 'application/octet-stream');
    assert.match(headers['content-disposition'], /^attachment/);
    assert.equal(headers['x-content-type-options'], 'nosniff');
    assert(headers['content-security-policy'].includes("default-src 'none'"), headers['content-security-policy']);
  }

  // A body of 5 MB, one that is very deep, one that cannot be read.
  await visit(page, '#/m/hostile/d/hostile/large', 'Show the first 200,000 characters');
  await page.getByRole('button', { name: 'Show the first' }).click();
  await page.getByText('The rest is in the download.').waitFor();
  assert(await page.evaluate(() => document.body.textContent.length < 300_000), 'the whole body is in the page');
  await visit(page, '#/m/hostile/d/hostile/deep', '1 item');
  assert(await page.evaluate(() => document.querySelectorAll('*').length < 3000), 'the whole body is in the page');
  await step('damage a body');
  await visit(page, '#/m/hostile/d/hostile/damaged', /is not JSON|is not UTF-8|cannot be read|Error/);

  // Names that a browser takes for steps in a path.
  for (const name of ['.', '..']) await visit(page, `#/m/hostile/d/hostile/${encodeURIComponent(name)}`, 'A browser cannot ask for a name');
  await visit(page, '#/m/hostile/d/hostile/a%2Fb', 'a/b');
  await page.locator('.tree').getByText('slash').waitFor();

  // What cannot be seen is written out: in the list of documents, in the title and in the body.
  const written = [...process.env.PAGE_UNSEEN].map((one) => (/^[-a-zé\u{1f4d6}]$/u.test(one) ? one : escaped(one))).join('');
  assert.equal(written.match(/\\u/g).length, 19);
  await visit(page, '#/m/hostile/d/hostile', 'Folder in the mirror');
  await page.getByRole('link', { name: 'unseen-' }).click();
  await page.locator('.tree').getByText('unseen-').first().waitFor();
  assert.equal(await page.getByRole('heading', { level: 1 }).evaluate((heading) => heading.textContent), written);
  const body = await page.locator('.tree').evaluate((tree) => tree.textContent);
  // Its id, and a member whose name and value are the same text.
  assert.equal(body.split(written).length, 4, body);
  assertCalm(seen);

  // The policy is in force: what a script of the page itself tried would be refused.
  const tried = await page.evaluate(async () => {
    const refused = [];
    document.addEventListener('securitypolicyviolation', (event) => refused.push(event.effectiveDirective));
    for (const attempt of [
      () => { document.body.insertAdjacentHTML('beforeend', '<b>markup</b>'); },
      () => { document.body.append(Object.assign(document.createElement('script'), { text: 'document.documentElement.dataset.ran = 1' })); },
      () => { document.body.append(Object.assign(document.createElement('img'), { src: 'http://127.0.0.1:9/x.png' })); },
      () => { document.body.append(Object.assign(document.createElement('iframe'), { src: 'data:text/html,x' })); },
      () => fetch('http://127.0.0.1:9/').catch(() => {}),
    ]) try { await attempt(); } catch { /* The policy threw. */ }
    await new Promise((resolve) => setTimeout(resolve, 300));
    return { refused, ran: document.documentElement.dataset.ran ?? null, markup: document.querySelectorAll('main ~ b').length };
  });
  assert.equal(tried.ran, null);
  assert.equal(tried.markup, 0);
  for (const directive of ['require-trusted-types-for', 'img-src', 'frame-src', 'connect-src']) assert(tried.refused.includes(directive), `${directive}: ${tried.refused}`);
  const { headers } = await page.evaluate(async () => ({ headers: Object.fromEntries((await fetch('/')).headers) }));
  assert(headers['content-security-policy'].startsWith("default-src 'none'; script-src 'self';"));
});
