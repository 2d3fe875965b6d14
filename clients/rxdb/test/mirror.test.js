// What the real program makes of a real database: folders, events, checkpoints.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { wrappedKeyCompressionStorage } from 'rxdb/plugins/key-compression';
import { wrappedKeyEncryptionCryptoJsStorage } from 'rxdb/plugins/encryption-crypto-js';
import { getRxStorageMemory } from 'rxdb/plugins/storage-memory';
import { attach, books, bytes, expose, open, schema, unused } from './support/database.js';
import { Live, body, counts, folders, mirror, place, plainfold, text } from './support/plainfold.js';

test('a mirror is made, followed and restored over a Unix socket, with no port open', async () => {
  const database = await open(['books', 'members']);
  await attach(await database.books.insert({ isbn: 'a/b' }), 'f', bytes(256));
  await database.members.insert({ isbn: 'm' });
  const [directory, one] = [join(place(), 'mirror'), join(place(), 'mirror')];
  const feed = await expose(database, { socketPath: join(place(), "the app's (1) %2F feed.sock") });
  assert.deepEqual([feed.port, new URL(feed.url).protocol], [undefined, 'http+unix:']);
  await mirror(`${feed.url}/members`, one);
  const live = await Live.start(feed.url, directory);
  await database.books.insert({ isbn: 'later' });
  await live.event((event) => event.documentId === 'later');
  assert.equal(await live.stop(), 0);
  assert.deepEqual([folders(directory, 'books'), folders(one, 'members')], [['a%2Fb', 'later'], ['m']]);
  const token = unused();
  const target = await expose(await open(['books', 'members']), {
    write: true,
    token,
    socketPath: join(place(), 'target.sock'),
  });
  assert.equal((await plainfold(['restore', directory, target.url])).code, 4);
  const named = target.url.replace('//', '//plainfold@');
  assert.equal((await plainfold(['restore', directory, named], { password: token })).code, 0);
  assert.equal((await plainfold(['verify', directory, '--against', named], { password: token })).code, 0);
});

test('every collection becomes a folder of its own, and a document is what the backup plugin would write', async () => {
  const database = await open(['books', 'members']);
  await database.books.bulkInsert(books(120));
  await database.books.insert({ isbn: 'same', title: 'A book' });
  await database.members.insert({ isbn: 'same', title: 'A member' });
  await (await database.books.findOne('b000007').exec()).incrementalPatch({ title: 'Revised' });
  const [directory, backup] = [join(place(), 'mirror'), place()];
  await mirror((await expose(database)).url, directory);
  assert.deepEqual(
    folders(directory).filter((name) => !name.startsWith('.')),
    ['books', 'members'],
  );
  assert.equal(folders(directory, 'books').length, 121);
  assert.ok(!existsSync(join(directory, 'books', '_security.json')));
  assert.deepEqual(
    [body(directory, 'books', 'same').title, body(directory, 'members', 'same').title],
    ['A book', 'A member'],
  );
  await database.backup({ live: false, directory: backup, batchSize: 1000 }).awaitInitialBackup();
  for (const id of ['b000000', 'b000007', 'b000119']) assert.equal(text(directory, 'books', id), text(backup, id));
  assert.deepEqual(Object.keys(body(directory, 'books', 'same')), [
    'isbn',
    'title',
    '_deleted',
    '_attachments',
    '_meta',
    '_rev',
  ]);
});

test('attachments are byte-exact: binary, empty, large, and whatever they are called', async () => {
  const database = await open();
  const book = await database.books.insert({ isbn: 'a' });
  const large = new Uint8Array(5 << 20).map((_, index) => index * 31);
  const files = {
    'all.bin': bytes(256),
    empty: bytes(0),
    'large.bin': large,
    'plans/grüße 1.png': bytes(99),
    'bom.txt': Buffer.from('\ufefftext\n'),
  };
  for (const [name, data] of Object.entries(files)) await attach(book, name, data);
  const directory = join(place(), 'mirror');
  const { url } = await expose(database);
  assert.equal(counts(await mirror(url, directory)).attachments, 5);
  const at = (name) => readFileSync(join(directory, 'books/a/attachments', name.replace('/', '%2F')));
  for (const [name, data] of Object.entries(files)) assert.ok(at(name).equals(Buffer.from(data)), name);
  assert.equal((await plainfold(['verify', directory, '--against', url])).code, 0);
});

test('no id leads out of the directory, nor is too long for it', async () => {
  const long = schema({ properties: { isbn: { type: 'string', maxLength: 500 } } });
  const database = await open({ books: { schema: long } });
  const ids = [
    '../x',
    '..',
    '.',
    'a/b',
    'a//b',
    '%41',
    'CON',
    '.hidden',
    'trailing.',
    '_design/x',
    '_local/y',
    'ünï ☃',
    '\\',
    'x'.repeat(199),
    'y'.repeat(500),
  ];
  await database.books.bulkInsert(ids.map((isbn) => ({ isbn })));
  await attach(await database.books.findOne('_design/x').exec(), 'f', bytes(9));
  await attach(await database.books.findOne('..').exec(), 'f', bytes(9));
  const parent = place();
  const { url } = await expose(database);
  await mirror(url, join(parent, 'mirror'));
  assert.deepEqual(folders(parent), ['mirror']);
  const found = folders(parent, 'mirror/books').map((name) => body(parent, 'mirror/books', name).isbn);
  assert.deepEqual(found.sort(), ids.sort());
  assert.equal((await plainfold(['verify', join(parent, 'mirror'), '--against', url])).code, 0);
});

test('a later run continues from its checkpoint: what is new, what is deleted, or nothing', async () => {
  const database = await open();
  await database.books.bulkInsert(books(60));
  const { url } = await expose(database);
  const directory = join(place(), 'mirror');
  assert.equal(counts(await mirror(url, directory)).written, 60);
  assert.deepEqual(counts(await mirror(url, directory)), {
    written: 0,
    deleted: 0,
    unchanged: 0,
    attachments: 0,
    failures: 0,
  });
  await (await database.books.findOne('b000001').exec()).incrementalPatch({ title: 'Revised' });
  await (await database.books.findOne('b000002').exec()).remove();
  await database.books.insert({ isbn: 'new' });
  const { written, deleted } = counts(await mirror(url, directory));
  assert.deepEqual([written, deleted], [2, 1]);
  assert.ok(!existsSync(join(directory, 'books/b000002')));
  assert.equal(body(directory, 'books/b000001').title, 'Revised');
});

test("a live mirror tells every write with the fields of the plugin's events", async () => {
  const database = await open(['books', 'members']);
  await database.books.insert({ isbn: 'before' });
  const directory = join(place(), 'mirror');
  const live = await Live.start((await expose(database)).url, directory);
  const { collectionName, documentId, files, deleted } = await live.event((event) => event.documentId === 'before');
  assert.deepEqual(
    [collectionName, documentId, deleted, files],
    ['books', 'before', false, ['books/before/document.json']],
  );
  const member = await database.members.insert({ isbn: 'later' });
  await attach(member, 'x.bin', bytes(256));
  const told = await live.event((event) => event.collectionName === 'members' && event.files.length === 2);
  assert.deepEqual(told.files, ['members/later/document.json', 'members/later/attachments/x.bin']);
  assert.deepEqual(readFileSync(join(directory, told.files[1])), Buffer.from(bytes(256)));
  await member.getLatest().remove();
  const gone = await live.event((event) => event.deleted);
  assert.deepEqual([gone.collectionName, gone.documentId, gone.files], ['members', 'later', []]);
  await database.addCollections({ loans: { schema: schema() } });
  await database.loans.insert({ isbn: 'l1' });
  await live.event((event) => event.collectionName === 'loans' && event.documentId === 'l1');
  assert.equal(await live.stop(), 0);
});

test('a collection that is made again is read again, and what it lacks is removed', async () => {
  const database = await open();
  await database.books.bulkInsert(books(3));
  const { url } = await expose(database);
  const directory = join(place(), 'mirror');
  await mirror(url, directory);
  await database.books.remove();
  await database.addCollections({ books: { schema: schema() } });
  await database.books.insert({ isbn: 'other' });
  await mirror(url, directory);
  assert.deepEqual(folders(directory, 'books'), ['other']);
});

test('deletions that were cleaned up while nobody mirrored are found', async () => {
  const database = await open();
  await database.books.bulkInsert(books(5));
  const { url } = await expose(database);
  const directory = join(place(), 'mirror');
  await mirror(url, directory);
  await (await database.books.findOne('b000004').exec()).remove();
  await database.books.cleanup(0);
  await mirror(url, directory);
  assert.deepEqual(folders(directory, 'books'), ['b000000', 'b000001', 'b000002', 'b000003']);
});

test('tombstones and histories are kept where that is asked for', async () => {
  const database = await open();
  const [book] = (await database.books.bulkInsert(books(2))).success;
  await book.incrementalPatch({ title: 'Revised' });
  const { url } = await expose(database);
  const directory = join(place(), 'mirror');
  const options = ['--revisions', '--deleted', 'keep'];
  await mirror(url, directory, ...options);
  await book.getLatest().remove();
  await mirror(url, directory, ...options);
  assert.equal(folders(directory, 'books').length, 2);
  assert.equal((await plainfold(['verify', directory, '--against', url])).code, 0);
});

test('what is encrypted or compressed in the storage is in the mirror as the collection gives it', async () => {
  const storage = wrappedKeyCompressionStorage({
    storage: wrappedKeyEncryptionCryptoJsStorage({ storage: getRxStorageMemory() }),
  });
  const properties = {
    ...schema().properties,
    secret: { type: 'string' },
    deep: { type: 'object', properties: { very: { type: 'array' } } },
  };
  const own = schema({ properties, encrypted: ['secret', 'deep'], attachments: { encrypted: true } });
  const compressed = schema({ properties, keyCompression: true });
  const password = unused();
  const database = await open({ books: { schema: own }, members: { schema: compressed } }, { storage, password });
  const book = await database.books.insert({ isbn: 'a', secret: 'whispered', deep: { very: [1, 'two'] } });
  await attach(book, 'x.bin', bytes(256));
  await database.members.insert({ isbn: 'm', title: 'Spelt out', secret: 's' });
  const [directory, backup] = [join(place(), 'mirror'), place()];
  const { url } = await expose(database);
  await mirror(url, directory);
  const [kept, member] = [body(directory, 'books/a'), body(directory, 'members/m')];
  assert.deepEqual([kept.secret, kept.deep.very, member.title], ['whispered', [1, 'two'], 'Spelt out']);
  assert.deepEqual(readFileSync(join(directory, 'books/a/attachments/x.bin')), Buffer.from(bytes(256)));
  assert.equal('length' in kept._attachments['x.bin'], false);
  assert.equal((await plainfold(['verify', directory, '--against', url])).code, 0);
  await database.backup({ live: false, directory: backup }).awaitInitialBackup();
  assert.deepEqual(member, body(backup, 'm'));
});

test('a collection that was migrated to another schema, with the same revisions, is mirrored as it is now', async () => {
  const [storage, name] = [getRxStorageMemory(), unused()];
  const before = await open(['books'], { storage, name });
  await before.books.bulkInsert(books(8));
  await (await before.books.findOne('b000001').exec()).incrementalPatch({ title: 'Revised' });
  const directory = join(place(), 'mirror');
  const first = await expose(before);
  await mirror(first.url, directory);
  await before.close();
  const properties = { ...schema().properties, shelf: { type: 'string' } };
  const migrationStrategies = { 1: (book) => ({ ...book, shelf: `S${book.pages}` }) };
  const now = await open(
    { books: { schema: schema({ version: 1, properties }), migrationStrategies } },
    { storage, name },
  );
  await mirror((await expose(now)).url, directory, '--source-moved');
  assert.equal(body(directory, 'books/b000001').shelf, 'S1');
  assert.equal(body(directory, 'books/b000007').shelf, 'S7');
});

test('a document that was cleaned up and made again has its revision again, and is mirrored as it is now', async () => {
  const database = await open();
  const file = async (title, data) => attach(await database.books.insert({ isbn: 'a', title }), 'f', data);
  await file('First', bytes(9));
  const { url } = await expose(database);
  const directory = join(place(), 'mirror');
  await mirror(url, directory);
  const first = body(directory, 'books/a')._rev;
  await (await database.books.findOne('a').exec()).remove();
  await database.books.cleanup(0);
  await file('Second', bytes(10));
  await mirror(url, directory);
  const { title, _rev: rev } = body(directory, 'books/a');
  assert.deepEqual([title, rev], ['Second', first]);
  assert.deepEqual(readFileSync(join(directory, 'books/a/attachments/f')), Buffer.from(bytes(10)));
  assert.equal((await plainfold(['verify', directory, '--against', url])).code, 0);
});
