// Storages that keep what they hold: across restarts of the application, and with another engine behind them.

import 'fake-indexeddb/auto';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { getRxStorageDexie } from 'rxdb/plugins/storage-dexie';
import { attach, books, bytes, expose, open } from './support/database.js';
import { counts, folders, mirror, place, plainfold } from './support/plainfold.js';

const shop = fileURLToPath(new URL('./support/shop.js', import.meta.url));

/** An application of its own process, with a database on disk. `tell` has it do something, and gives its answer. */
async function start(directory, port = 0) {
  const child = spawn(process.execPath, [shop, directory, String(port)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const hear = async () => JSON.parse((await lines.next()).value);
  const ended = new Promise((resolve) => child.on('exit', (code, signal) => resolve(code ?? signal)));
  after(() => child.kill());
  const tell = async (command) => {
    child.stdin.write(`${JSON.stringify(command)}\n`);
    return hear();
  };
  const stop = (signal) => {
    child.kill(signal);
    return ended;
  };
  return { url: (await hear()).url, tell, stop };
}

test('a mirror continues from its checkpoint after the application has ended and started again', async () => {
  const [disk, directory] = [place(), join(place(), 'mirror')];
  const first = await start(disk);
  await first.tell({ insert: books(40) });
  await first.tell({ attach: 'b000003', data: Buffer.from(bytes(256)).toString('base64') });
  assert.equal(counts(await mirror(first.url, directory)).written, 40);
  await first.stop('SIGTERM');
  const second = await start(disk, new URL(first.url).port);
  assert.equal(second.url, first.url);
  const again = counts(await mirror(second.url, directory));
  assert.deepEqual([again.written, again.deleted], [0, 0]);
  await second.tell({ insert: books(2, 40) });
  await second.tell({ remove: 'b000001' });
  await second.stop('SIGKILL');
  const third = await start(disk, new URL(first.url).port);
  const { written, deleted } = counts(await mirror(third.url, directory));
  assert.deepEqual([written, deleted], [2, 1]);
  assert.equal(folders(directory, 'books').length, 41);
  assert.deepEqual(readFileSync(join(directory, 'books/b000003/attachments/f')), Buffer.from(bytes(256)));
  assert.equal((await plainfold(['verify', directory, '--against', third.url])).code, 0);
  await third.stop('SIGTERM');
});

test('the feed of an IndexedDB is read, followed by id and time, and restored into', async () => {
  const database = await open(['books'], { storage: getRxStorageDexie() });
  await database.books.bulkInsert(books(700));
  await attach(await database.books.findOne('b000003').exec(), 'f', bytes(256));
  await (await database.books.findOne('b000004').exec()).remove();
  const { url } = await expose(database, { write: true });
  const directory = join(place(), 'mirror');
  assert.equal(counts(await mirror(url, directory)).written, 699);
  assert.equal((await plainfold(['verify', directory, '--against', url])).code, 0);
  const empty = await open(['books'], { storage: getRxStorageDexie() });
  const target = await expose(empty, { write: true });
  assert.equal((await plainfold(['restore', directory, target.url])).code, 0);
  assert.equal((await plainfold(['verify', directory, '--against', target.url])).code, 0);
  const back = await (await empty.books.findOne('b000003').exec()).getAttachment('f').getData();
  assert.deepEqual(new Uint8Array(await back.arrayBuffer()), bytes(256));
});
