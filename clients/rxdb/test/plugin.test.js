// What RxDB documents for its backup plugin, asked of both.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { attach, books, bytes, expose, open } from './support/database.js';
import { Live, body, counts, folders, mirror, place, plainfold, status, until } from './support/plainfold.js';

const documents = (directory) =>
  folders(directory).filter((name) => existsSync(join(directory, name, 'document.json')));

test('a one-time backup writes everything, and its end can be waited for', async () => {
  const database = await open();
  await database.books.bulkInsert(books(30));
  const [theirs, ours] = [place(), join(place(), 'mirror')];
  await database.backup({ live: false, directory: theirs }).awaitInitialBackup();
  await mirror((await expose(database)).url, ours);
  assert.deepEqual(documents(theirs), documents(join(ours, 'books')));
});

test('a second backup continues from the checkpoint of the first', async () => {
  const database = await open();
  await database.books.bulkInsert(books(30));
  const [theirs, ours] = [place(), join(place(), 'mirror')];
  const { url } = await expose(database);
  await database.backup({ live: false, directory: theirs }).awaitInitialBackup();
  await mirror(url, ours);
  await database.books.insert({ isbn: 'new' });
  const written = [];
  const again = database.backup({ live: false, directory: theirs });
  again.writeEvents$.subscribe((event) => written.push(event.documentId));
  await again.awaitInitialBackup();
  assert.deepEqual(written, ['new']);
  assert.equal(counts(await mirror(url, ours)).written, 1);
});

test('a live backup writes what changes, tells it with the same fields, and can be ended', async () => {
  const database = await open();
  const [theirs, ours] = [place(), join(place(), 'mirror')];
  const state = database.backup({ live: true, directory: theirs, attachments: true });
  await state.awaitInitialBackup();
  const told = [];
  state.writeEvents$.subscribe((event) => told.push(event));
  const live = await Live.start((await expose(database)).url, ours);
  assert.equal((await status(ours)).caught_up, true);
  await attach(await database.books.insert({ isbn: 'a' }), 'f.txt', 'text');
  const theirEvent = await until(() => told.find((event) => event.files.length === 2));
  const ourEvent = await live.event((event) => event.files.length === 2);
  for (const field of ['collectionName', 'documentId', 'deleted'])
    assert.equal(ourEvent[field], theirEvent[field], field);
  assert.deepEqual(
    ourEvent.files.map((file) => file.replace('books/', '')),
    theirEvent.files.map((file) => file.replace(`${theirs}/`, '')),
  );
  for (const file of ourEvent.files) assert.ok(existsSync(join(ours, file)));
  // The plugin stops permanently if a document is deleted while it is read.
  await state.persistRunning;
  await (await database.books.findOne('a').exec()).remove();
  const theirs2 = await until(() => told.find((event) => event.deleted));
  const ours2 = await live.event((event) => event.deleted);
  for (const field of ['collectionName', 'documentId', 'deleted', 'files'])
    assert.deepEqual(ours2[field], theirs2[field], field);
  assert.ok(!existsSync(join(theirs, 'a')) && !existsSync(join(ours, 'books/a')));
  await state.cancel();
  assert.equal(await live.stop(), 0);
  await database.books.insert({ isbn: 'after' });
  assert.ok(!existsSync(join(theirs, 'after')) && !existsSync(join(ours, 'books/after')));
});

test('attachments are written, or left out', async () => {
  const database = await open();
  await attach(await database.books.insert({ isbn: 'a' }), 'f', bytes(100));
  const { url } = await expose(database);
  for (const attachments of [true, false]) {
    const [theirs, ours] = [place(), join(place(), 'mirror')];
    await database.backup({ live: false, directory: theirs, attachments }).awaitInitialBackup();
    await mirror(url, ours, '--attachments', String(attachments));
    const files = [join(theirs, 'a/attachments/f'), join(ours, 'books/a/attachments/f')];
    assert.deepEqual(files.map(existsSync), [attachments, attachments]);
    if (attachments) for (const file of files) assert.deepEqual(readFileSync(file), Buffer.from(bytes(100)));
  }
});

test('any program reads what is written, as plain JSON', async () => {
  const database = await open();
  await database.books.insert({ isbn: 'a', title: 'Grüße ☃', pages: 1.5 });
  const [theirs, ours] = [place(), join(place(), 'mirror')];
  await database.backup({ live: false, directory: theirs }).awaitInitialBackup();
  await mirror((await expose(database)).url, ours);
  assert.deepEqual(body(ours, 'books/a'), body(theirs, 'a'));
});

test('a collection is chosen in the application, or when it is mirrored', async () => {
  const database = await open(['books', 'members']);
  await database.books.insert({ isbn: 'b' });
  await database.members.insert({ isbn: 'm' });
  const [chosen, globbed] = [join(place(), 'mirror'), join(place(), 'mirror')];
  await mirror((await expose(database, { collections: ['members'] })).url, chosen);
  await mirror((await expose(database)).url, globbed, '--collections', 'mem*');
  for (const directory of [chosen, globbed])
    assert.deepEqual(
      folders(directory).filter((name) => !name.startsWith('.')),
      ['members'],
    );
  assert.equal((await plainfold(['verify', chosen])).code, 0);
});
