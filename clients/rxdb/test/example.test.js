// The example of the README, run as it says.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Live, body, folders, mirror, place, plainfold } from './support/plainfold.js';

const app = fileURLToPath(new URL('../example/app.js', import.meta.url));
const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');

/** The example, with the URL that it prints. */
async function run(...args) {
  const child = spawn(process.execPath, [app, ...args], {
    env: { ...process.env, PORT: '0' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  after(() => child.kill());
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => (await lines.next()).value;
  const ended = new Promise((resolve) => child.on('exit', resolve));
  const [, url] = (await next()).match(/^plainfold mirror (\S+) \.\/backup$/);
  return { url, type: (title) => (child.stdin.write(`${title}\n`), next()), end: () => (child.stdin.end(), ended) };
}

test('the example is mirrored, followed, and restored into an empty one', async () => {
  const directory = join(place(), 'backup');
  const one = await run();
  await mirror(one.url, directory);
  assert.deepEqual([folders(directory, 'books'), folders(directory, 'members')], [['book-1', 'book-2'], ['book-1']]);
  assert.deepEqual([...readFileSync(join(directory, 'books/book-1/attachments/cover.bin'))], [0, 128, 255]);
  const live = await Live.start(one.url, directory);
  const [id] = (await one.type('Lamps')).split(':');
  await live.event((event) => event.documentId === id);
  assert.equal(body(directory, 'books', id).title, 'Lamps');
  assert.equal(await live.stop(), 0);
  assert.equal(await one.end(), 0);
  const other = await run('--write', '--empty');
  assert.equal((await plainfold(['restore', directory, other.url])).code, 0);
  assert.equal((await plainfold(['verify', directory, '--against', other.url])).code, 0);
  assert.match(await other.type('More'), /: 4 books$/);
  assert.equal(await other.end(), 0);
});

test('the README names the options that there are', () => {
  const types = readFileSync(new URL('../index.d.ts', import.meta.url), 'utf8');
  const [, options] = types.match(/interface PlainfoldFeedOptions \{([^]*?)\n\}/);
  for (const [, name] of options.matchAll(/^ {2}(\w+)\??:/gm)) assert.ok(readme.includes(`| \`${name}\` |`), name);
});
