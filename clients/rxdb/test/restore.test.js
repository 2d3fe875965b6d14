// The way back: from a mirror, and from what RxDB's own plugin wrote, into a running database.

import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { wrappedKeyEncryptionCryptoJsStorage } from 'rxdb/plugins/encryption-crypto-js';
import { getRxStorageMemory } from 'rxdb/plugins/storage-memory';
import { wrappedValidateZSchemaStorage } from 'rxdb/plugins/validate-z-schema';
import { ask, attach, books, bytes, expose, open, schema, unused } from './support/database.js';
import { couch, noCouch } from './support/couch.js';
import { mirror, place, plainfold } from './support/plainfold.js';

const recorded = fileURLToPath(new URL('../../../fixtures/rxdb-backup-17.6.0/one', import.meta.url));

const restore = (directory, url, ...more) => plainfold(['restore', directory, url, ...more]);

/** The documents as the application sees them, without the times. */
async function held(collection) {
  const documents = await collection.find().exec();
  return Object.fromEntries(
    documents.map((document) => [document.primary, { ...document.toJSON(true), _meta: undefined }]),
  );
}

async function mirrored(...args) {
  const database = await open(...args);
  const feed = await expose(database, { write: true });
  const directory = join(place(), 'mirror');
  return { database, feed, directory, mirror: () => mirror(feed.url, directory) };
}

test('a mirror is restored with revisions and attachments, proven equal, and again without a change', async () => {
  const source = await mirrored(['books', 'members']);
  await source.database.books.bulkInsert(books(700));
  await (await source.database.books.findOne('b000003').exec()).incrementalPatch({ title: 'Revised' });
  await attach(await source.database.books.findOne('b000003').exec(), 'all.bin', bytes(256), 'image/png');
  await attach(await source.database.books.findOne('b000004').exec(), 'large.bin', new Uint8Array(2 << 20).fill(7));
  await source.database.members.insert({ isbn: '_design/../x y' });
  await source.mirror();
  const target = await open(['books', 'members']);
  const { url } = await expose(target, { write: true });
  const first = await restore(source.directory, url);
  assert.equal(first.code, 0, first.stderr);
  assert.deepEqual(await held(target.books), await held(source.database.books));
  assert.deepEqual(await held(target.members), await held(source.database.members));
  const data = await (await target.books.findOne('b000003').exec()).getAttachment('all.bin').getData();
  assert.deepEqual([new Uint8Array(await data.arrayBuffer()), data.type], [bytes(256), 'image/png']);
  assert.equal((await plainfold(['verify', source.directory, '--against', url])).code, 0);
  const again = await restore(source.directory, url);
  assert.match(again.stdout, /books: 0 documents created, 0 replaced, 700 skipped/);
});

test('an application hears of restored documents, and writes on from their revisions', async () => {
  const source = await mirrored();
  await source.database.books.bulkInsert(books(3));
  await source.mirror();
  const target = await open();
  const heard = [];
  target.books.$.subscribe(({ operation, documentId }) => heard.push(`${operation} ${documentId}`));
  assert.equal((await restore(source.directory, (await expose(target, { write: true })).url)).code, 0);
  assert.deepEqual(heard.sort(), ['INSERT b000000', 'INSERT b000001', 'INSERT b000002']);
  const book = await target.books.findOne('b000001').exec();
  await book.incrementalPatch({ title: 'Revised' });
  assert.equal(book.getLatest().revision, `2-${target.token}`);
});

test(
  'a mirror of RxDB is put into a CouchDB with its revisions, and from there into RxDB',
  { skip: noCouch },
  async () => {
    const source = await mirrored();
    await source.database.books.bulkInsert(books(30));
    const book = await source.database.books.findOne('b000003').exec();
    await book.incrementalPatch({ title: 'Revised' });
    await attach(book, 'all.bin', bytes(256), 'image/png');
    const { revision } = book.getLatest();
    await source.mirror();
    const server = await couch();
    const put = await restore(source.directory, server);
    assert.equal(put.code, 0, put.stdout + put.stderr);
    assert.equal((await plainfold(['verify', source.directory, '--against', server])).code, 0);
    const { _id, _rev, title, _meta } = await (await fetch(`${server}/books/b000003`)).json();
    assert.deepEqual([_id, _rev, title, _meta], ['b000003', revision, 'Revised', undefined]);
    const file = await fetch(`${server}/books/b000003/all.bin`);
    assert.equal(file.headers.get('content-type'), 'image/png');
    assert.deepEqual(new Uint8Array(await file.arrayBuffer()), bytes(256));
    const directory = join(place(), 'mirror');
    await mirror(server, directory);
    const target = await open();
    const back = await restore(directory, (await expose(target, { write: true })).url);
    assert.equal(back.code, 0, back.stdout + back.stderr);
    assert.deepEqual(await held(target.books), await held(source.database.books));
  },
);

test('without { write: true } nothing is written, and the reason says what to do', async () => {
  const source = await mirrored();
  await source.database.books.bulkInsert(books(2));
  await source.mirror();
  const target = await open();
  const { code, stdout, stderr } = await restore(source.directory, (await expose(target)).url);
  assert.notEqual(code, 0);
  assert.match(stdout + stderr, /read-only.*\{ write: true \}/);
  assert.deepEqual(await held(target.books), {});
});

test('a collection that the application does not have is named, and the others are restored', async () => {
  const source = await mirrored(['books', 'members']);
  await source.database.books.insert({ isbn: 'a' });
  await source.database.members.insert({ isbn: 'm' });
  await source.mirror();
  const target = await open(['members']);
  const { code, stdout, stderr } = await restore(source.directory, (await expose(target, { write: true })).url);
  assert.equal(code, 1);
  assert.match(stdout + stderr, /no collection books open/);
  assert.deepEqual(Object.keys(await held(target.members)), ['m']);
});

test('a document that does not fit the schema is named with the reason, and the others are restored', async () => {
  const source = await mirrored();
  await source.database.books.bulkInsert([{ isbn: 'fits', pages: 1 }, { isbn: 'lacks' }]);
  await attach(await source.database.books.findOne('fits').exec(), 'f', bytes(3));
  await source.mirror();
  const own = schema({ required: ['isbn', 'pages'] });
  const { attachments, ...bare } = own;
  for (const [options, creator, refused, kept] of [
    [{}, own, /lacks.*does not fit the collection's schema.*pages/, ['fits']],
    [
      { storage: wrappedValidateZSchemaStorage({ storage: getRxStorageMemory() }) },
      own,
      /lacks.*does not fit the collection's schema.*pages/i,
      ['fits'],
    ],
    [{}, { ...bare, required: ['isbn'] }, /fits.*allows no attachments/, ['lacks']],
  ]) {
    const target = await open({ books: { schema: creator } }, options);
    const { code, stdout, stderr } = await restore(source.directory, (await expose(target, { write: true })).url);
    assert.equal(code, 1);
    assert.match(stdout + stderr, refused);
    assert.deepEqual(Object.keys(await held(target.books)), kept);
  }
});

test('what the application has in other revisions is refused, left, or overwritten, as asked', async () => {
  const source = await mirrored();
  const [a, b] = (
    await source.database.books.bulkInsert([
      { isbn: 'a', title: 'Kept' },
      { isbn: 'b', title: 'Kept' },
    ])
  ).success;
  await source.mirror();
  await a.incrementalPatch({ title: 'Changed' });
  await b.remove();
  await source.database.books.insert({ isbn: 'c', title: 'New' });
  const now = await held(source.database.books);
  const refused = await restore(source.directory, source.feed.url);
  assert.notEqual(refused.code, 0);
  assert.deepEqual(await held(source.database.books), now);
  assert.equal((await restore(source.directory, source.feed.url, '--on-existing', 'skip')).code, 0);
  assert.deepEqual(await held(source.database.books), now);
  assert.equal((await restore(source.directory, source.feed.url, '--on-existing', 'overwrite')).code, 0);
  const titles = Object.values(await held(source.database.books)).map((book) => book.title);
  assert.deepEqual(titles, ['Kept', 'Kept', 'New']);
  const again = await restore(source.directory, source.feed.url, '--on-existing', 'overwrite');
  assert.match(again.stdout, /0 documents created, 0 replaced, 2 skipped/);
});

test('a revision of another branch is overwritten where that is asked for', async () => {
  const source = await mirrored();
  await (await source.database.books.insert({ isbn: 'a', title: 'Kept' })).incrementalPatch({ pages: 2 });
  await source.mirror();
  const target = await open();
  await target.books.insert({ isbn: 'a', title: 'Another' });
  const { url } = await expose(target, { write: true });
  assert.notEqual((await restore(source.directory, url)).code, 0);
  assert.equal((await restore(source.directory, url, '--on-existing', 'overwrite')).code, 0);
  assert.deepEqual(await held(target.books), await held(source.database.books));
});

test('a write that comes between is no victim: the restore reports the conflict', async () => {
  const database = await open();
  const feed = await expose(database, { write: true });
  await database.books.insert({ isbn: 'a', title: 'Newer' });
  const docs = [
    { _id: 'a', isbn: 'a', title: 'Old', _rev: '4-old' },
    { isbn: 'b', _rev: '1-old' },
  ];
  const { json } = await ask(feed, '/books/_bulk_docs', { method: 'POST', json: { new_edits: false, docs } });
  assert.deepEqual(
    json.map(({ id, rev, error }) => [id, rev, error]),
    [['a', '4-old', 'conflict']],
  );
  assert.equal((await database.books.findOne('a').exec()).title, 'Newer');
  assert.equal((await database.books.findOne('b').exec()).revision, '1-old');
});

test('tombstones are restored, and come to rest on a document where they may', async () => {
  const source = await mirrored();
  const [, b] = (await source.database.books.bulkInsert(books(2))).success;
  await mirror(source.feed.url, source.directory, '--deleted', 'keep');
  await b.remove();
  await mirror(source.feed.url, source.directory, '--deleted', 'keep');
  const target = await open();
  const { url } = await expose(target, { write: true });
  const { code, stdout } = await restore(source.directory, url);
  assert.equal(code, 0);
  assert.match(stdout, /1 document created|1 documents created/);
  const { results } = (await ask({ url }, '/books/_changes')).json;
  assert.deepEqual(results.map((row) => [row.id, row.deleted]).sort(), [
    ['b000000', undefined],
    ['b000001', true],
  ]);
});

test('what was encrypted comes back encrypted, with its attachments', async () => {
  const encrypted = {
    storage: wrappedKeyEncryptionCryptoJsStorage({ storage: getRxStorageMemory() }),
    password: unused(),
  };
  const own = schema({ encrypted: ['title'], attachments: { encrypted: true } });
  const source = await mirrored({ books: { schema: own } }, encrypted);
  await attach(await source.database.books.insert({ isbn: 'a', title: 'Whispered' }), 'f', bytes(256));
  await source.mirror();
  const target = await open({ books: { schema: own } }, encrypted);
  const { code, stderr } = await restore(source.directory, (await expose(target, { write: true })).url);
  assert.equal(code, 0, stderr);
  const book = await target.books.findOne('a').exec();
  assert.equal(book.title, 'Whispered');
  assert.deepEqual(new Uint8Array(await (await book.getAttachment('f').getData()).arrayBuffer()), bytes(256));
  const inner = target.books.storageInstance.originalStorageInstance.originalStorageInstance;
  assert.notEqual((await inner.findDocumentsById(['a'], false))[0].title, 'Whispered');
});

test('a tree that the backup plugin wrote is restored into RxDB', async () => {
  const tree = join(place(), 'one');
  cpSync(recorded, tree, { recursive: true });
  // Git keeps no empty folders, and the plugin has spoilt the attachments of these two.
  for (const id of readdirSync(tree, { recursive: true }))
    if (id.endsWith('document.json')) mkdirSync(join(tree, id, '../attachments'), { recursive: true });
  for (const id of ['binary', 'marked']) rmSync(join(tree, id), { recursive: true });
  const target = await open({
    shelf: {
      schema: schema({
        properties: { isbn: { type: 'string', maxLength: 100 }, title: { type: 'string' }, n: { type: 'number' } },
      }),
    },
  });
  const { url } = await expose(target, { write: true });
  const { code, stdout, stderr } = await restore(tree, url);
  assert.equal(code, 0, stdout + stderr);
  const documents = await held(target.shelf);
  assert.equal(Object.keys(documents).length, 10);
  assert.deepEqual(Object.keys(documents.plain), ['isbn', 'title', 'n', '_deleted', '_attachments', '_meta', '_rev']);
  const file = (await target.shelf.findOne('plain').exec()).getAttachment('grüße 1.txt');
  assert.deepEqual([await file.getStringData(), file.type], ['grüße\n', 'text/plain']);
  assert.equal((await plainfold(['verify', tree, '--against', `${url}/shelf`])).code, 0);
});

test('what is no restore is refused', async () => {
  const feed = await expose(await open(), { write: true });
  const put = async (json) => (await ask(feed, '/books/_bulk_docs', { method: 'POST', json })).json;
  assert.match((await put({ docs: [] })).reason, /new_edits=false/);
  assert.match((await put({ new_edits: false, docs: {} })).reason, /list/);
  assert.match((await put({ new_edits: false, docs: [{ isbn: 'a', _id: 'b', _rev: '1-a' }] })).reason, /primary key/);
  assert.match((await put({ new_edits: false, docs: [{ isbn: 'a' }] })).reason, /no revision/);
  assert.match((await put({ new_edits: false, docs: [null] })).reason, /primary key/);
  const odd = JSON.parse('{ "__proto__": ["1-a"], "constructor": ["1-a"] }');
  const unknown = (await ask(feed, '/books/_revs_diff', { method: 'POST', json: odd })).json;
  assert.deepEqual(Object.keys(unknown), ['__proto__', 'constructor']);
  for (const stub of [{ stub: true }, null])
    assert.match(
      (await put({ new_edits: false, docs: [{ isbn: 'a', _rev: '1-a', _attachments: { f: stub } }] }))[0].reason,
      /without its data/,
    );
  const { status, json } = await ask(feed, '/books/_security', { method: 'PUT', json: { admins: {} } });
  assert.deepEqual([status, json.error], [400, 'bad_request']);
});
