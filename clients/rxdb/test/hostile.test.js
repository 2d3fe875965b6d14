// What goes wrong around a feed: clear answers, no harm to the application, no growth of its memory.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, statSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { getRxStorageMemory } from 'rxdb/plugins/storage-memory';
import { exposePlainfoldFeed } from 'plainfold-rxdb';
import { ask, attach, books, bytes, expose, open, schema, unused } from './support/database.js';
import { withholding } from './support/late.js';
import { Room } from '../src/room.js';
import { Live, counts, folders, mirror, place, plainfold, until } from './support/plainfold.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');

/** An open answer, of which nothing is read yet. */
const answerOf = (url) => new Promise((resolve) => get(url, (answer) => resolve(answer.on('error', () => {}))));

/** The rest of an answer, and whether it came whole. */
async function rest(answer) {
  let text = '';
  answer.setEncoding('utf8').on('data', (piece) => (text += piece));
  if (!answer.closed) await new Promise((resolve) => answer.on('close', resolve));
  return { text, whole: answer.complete };
}

test('a collection that closes ends its feeds normally and is then missing', async () => {
  const database = await open();
  await database.books.insert({ isbn: 'a' });
  const feed = await expose(database);
  const answer = await answerOf(`${feed.url}/books/_changes?feed=continuous&heartbeat=60000`);
  const read = rest(answer);
  await once(answer, 'data');
  await database.books.close();
  const { text, whole } = await read;
  assert.ok(whole);
  assert.match(text, /\{"last_seq":"[^"]+","pending":0\}\n$/);
  const { status, json } = await ask(feed, '/books');
  assert.deepEqual([status, json.error], [404, 'not_found']);
  assert.match(json.reason, /Database does not exist.*no collection books open/);
  assert.deepEqual((await ask(feed, '/_all_dbs')).json, []);
});

test('a collection that closes while it is listed breaks the listing off', async () => {
  const database = await open();
  const title = 'x'.repeat(5000);
  await database.books.bulkInsert(books(4000).map((book) => ({ ...book, title })));
  const feed = await expose(database);
  const answer = await answerOf(`${feed.url}/books/_changes?include_docs=true`);
  const closing = database.books.close();
  const { text, whole } = await rest(answer);
  await closing;
  assert.ok(!whole && !text.includes('last_seq'));
});

test('a database that closes takes its feed with it, although clients are connected', async () => {
  const database = await open();
  await database.books.bulkInsert(books(2000));
  const feed = await expose(database);
  const paths = ['feed=continuous&heartbeat=60000', 'include_docs=true'];
  const answers = await Promise.all(paths.map((query) => answerOf(`${feed.url}/books/_changes?${query}`)));
  const read = Promise.all(answers.map(rest));
  await database.close();
  await read;
  await assert.rejects(fetch(feed.url));
});

test('a live mirror survives a restart of the application', async () => {
  const [storage, name, directory] = [getRxStorageMemory(), unused(), join(place(), 'mirror')];
  const before = await open(['books'], { storage, name });
  await before.books.insert({ isbn: 'before' });
  const feed = await expose(before);
  const { port } = feed;
  const live = await Live.start(feed.url, directory);
  await before.close();
  const now = await open(['books'], { storage, name });
  await expose(now, { port });
  await now.books.insert({ isbn: 'after' });
  await live.event((event) => event.documentId === 'after');
  assert.equal(await live.stop(), 0);
});

test('while a schema migration is pending or under way, nothing passes for deleted', async () => {
  const [storage, name, directory] = [getRxStorageMemory(), unused(), join(place(), 'mirror')];
  const before = await open(['books'], { storage, name });
  await before.books.bulkInsert(books(8));
  const first = await expose(before);
  const { port } = first;
  await mirror(first.url, directory);
  await before.close();
  const { storage: slow, hold } = withholding(storage);
  const migrationStrategies = { 1: (book) => book };
  const now = await open(
    { books: { schema: schema({ version: 1 }), migrationStrategies, autoMigrate: false } },
    { storage: slow, name },
  );
  const feed = await expose(now, { port });
  const pending = await ask(feed, '/books/_changes');
  assert.deepEqual([pending.status, pending.json.error, pending.headers.get('retry-after')], [503, 'migration', '1']);
  const caught = hold();
  const migrated = now.books.migratePromise();
  const release = await caught;
  assert.equal((await ask(feed, '/books')).status, 503);
  const run = plainfold(['mirror', feed.url, directory]);
  release();
  await migrated;
  assert.equal((await run).code, 0);
  assert.equal(folders(directory, 'books').length, 8);
});

test('an attachment that is deleted or replaced between its row and its reading is not there', async () => {
  const database = await open();
  const book = await database.books.insert({ isbn: 'a' });
  await attach(book, 'f', bytes(9));
  const rev = book.getLatest().revision;
  const feed = await expose(database);
  const path = `/books/a/f?rev=${rev}`;
  const docs = [{ id: 'a', rev }];
  for (const change of [
    () => attach(book, 'f', bytes(10)),
    () => book.getLatest().getAttachment('f').remove(),
    () => book.getLatest().remove(),
  ]) {
    await change();
    const { status, json } = await ask(feed, path);
    assert.deepEqual([status, json.error], [404, 'not_found']);
    const bulk = await ask(feed, '/books/_bulk_get?attachments=true', { method: 'POST', json: { docs } });
    assert.equal(bulk.json.results[0].docs[0].error.error, 'not_found');
  }
});

test('an attachment that has stayed the same is there, though its document has been written since', async () => {
  const database = await open();
  const book = await database.books.insert({ isbn: 'a' });
  await attach(book, 'same', bytes(9));
  await attach(book, 'other', bytes(9));
  const rev = book.getLatest().revision;
  const feed = await expose(database);
  await ask(feed, '/books/_changes?include_docs=true');
  await attach(book, 'other', bytes(10));
  await book.getLatest().incrementalPatch({ title: 'Revised' });
  const got = await fetch(`${feed.url}/books/a/same?rev=${rev}`);
  assert.deepEqual(new Uint8Array(await got.arrayBuffer()), bytes(9));
  assert.equal((await ask(feed, `/books/a/other?rev=${rev}`)).status, 404);
  const { json } = await ask(feed, '/books/_bulk_get?attachments=true', {
    method: 'POST',
    json: { docs: [{ id: 'a', rev }] },
  });
  const { ok } = json.results[0].docs[0];
  assert.deepEqual([ok._rev, Object.keys(ok._attachments)], [rev, ['same']]);
});

test('a document that is written again faster than its attachments are read is still mirrored', async () => {
  const memory = getRxStorageMemory();
  const createStorageInstance = async (params) => {
    const instance = await memory.createStorageInstance(params);
    const read = instance.getAttachmentData.bind(instance);
    instance.getAttachmentData = async (...args) => {
      await pause(50);
      return read(...args);
    };
    return instance;
  };
  const database = await open(['books'], { storage: { ...memory, createStorageInstance } });
  const book = await database.books.insert({ isbn: 'a', pages: 0 });
  for (let index = 0; index < 10; index += 1) await attach(book, `f${index}`, bytes(index));
  const { url } = await expose(database);
  const directory = join(place(), 'mirror');
  let over = false;
  const run = mirror(url, directory).finally(() => (over = true));
  while (!over) {
    await book.getLatest().incrementalModify((data) => ({ ...data, pages: data.pages + 1 }));
    await pause(20);
  }
  assert.equal(counts(await run).failures, 0);
  assert.equal(readdirSync(join(directory, 'books/a/attachments')).length, 10);
});

test('of old revisions no more than the last 10,000 attachments are remembered', async () => {
  const database = await open();
  const feed = await expose(database, { write: true });
  const names = Array.from({ length: 100 }, (_, index) => `f${index}`);
  const _attachments = Object.fromEntries(names.map((name) => [name, { data: 'AA==' }]));
  const docs = books(101).map((book) => ({ ...book, _rev: '1-a', _attachments }));
  const written = await ask(feed, '/books/_bulk_docs', { method: 'POST', json: { new_edits: false, docs } });
  assert.deepEqual(written.json, []);
  await ask(feed, '/books/_changes');
  for (const book of await database.books.find().exec()) await book.incrementalPatch({ title: 'Revised' });
  const status = async (id) => (await fetch(`${feed.url}/books/${id}/f0?rev=1-a`)).status;
  assert.deepEqual([await status('b000000'), await status('b000001'), await status('b000100')], [404, 200, 200]);
});

test('a mirror of documents whose attachments are replaced meanwhile is right in the end', async () => {
  const database = await open();
  const all = (await database.books.bulkInsert(books(30))).success;
  for (const book of all) await attach(book, 'f', bytes(100));
  const { url } = await expose(database);
  const directory = join(place(), 'mirror');
  const run = plainfold(['mirror', url, directory]);
  for (const book of all) {
    await attach(book, 'f', bytes(200));
    await new Promise(setImmediate);
  }
  assert.equal(counts(await run).failures, 0);
  await mirror(url, directory);
  assert.equal((await plainfold(['verify', directory, '--against', url])).code, 0);
});

test('a wrong token is refused at once, and no token is ever repeated', async () => {
  const database = await open();
  await database.books.insert({ isbn: 'a' });
  const token = unused();
  const feed = await expose(database, { token });
  const named = feed.url.replace('//', '//plainfold@');
  const directory = join(place(), 'mirror');
  for (const password of [undefined, unused()]) {
    const { code, stdout, stderr } = await plainfold(['mirror', password ? named : feed.url, directory], { password });
    assert.equal(code, 4, stderr);
    assert.ok(!`${stdout}${stderr}`.includes(token) && !`${stdout}${stderr}`.includes(password));
  }
  assert.equal((await plainfold(['mirror', named, directory], { password: token })).code, 0);
  const status = async (authorization) =>
    (await ask(feed, '/_all_dbs', { headers: authorization ? { authorization } : {} })).status;
  assert.equal(await status(`Bearer ${token}`), 200);
  for (const wrong of [undefined, `Bearer ${token}x`, 'Bearer', `Digest ${token}`, `Basic ${token}`])
    assert.equal(await status(wrong), 401);
});

test('a door that others reach takes a token, and doors that cannot be are refused', async () => {
  const database = await open();
  const refused = (options, reason) => assert.rejects(exposePlainfoldFeed({ database, ...options }), reason);
  await refused({ port: 0, host: '0.0.0.0' }, /give a token/);
  await refused({ port: 0, host: '::' }, /give a token/);
  await refused({ port: 0, token: 'short' }, /16 characters/);
  await refused({}, /either port or socketPath/);
  await refused({ port: 0, socketPath: '/x' }, /either port or socketPath/);
  await refused({ port: 70000 }, /65536/);
  await refused({ port: 0, collections: 'books' }, /list of names/);
  await refused({ port: 0, database: {} }, /open RxDatabase/);
  await refused({ port: 0, stallTimeout: 0 }, /stallTimeout must be/);
  await refused({ port: 0, maxRequestBytes: 2 ** 31 }, /maxRequestBytes must be/);
  const closed = await open();
  await closed.close();
  await refused({ port: 0, database: closed }, /open RxDatabase/);
  const feed = await expose(database, { host: '0.0.0.0', token: unused() });
  const [outside] = Object.values(networkInterfaces())
    .flat()
    .filter((one) => one.family === 'IPv4' && !one.internal);
  if (outside) assert.equal((await ask({ url: `http://${outside.address}:${feed.port}` }, '/')).status, 401);
});

test('without a token a web page gets no answer: not by another name, not by a form', async () => {
  const feed = await expose(await open(), { write: true });
  const answer = await once(get(`${feed.url}/_all_dbs`, { headers: { host: 'evil.example' } }), 'response');
  assert.equal(answer[0].statusCode, 403);
  const form = { method: 'POST', headers: { 'content-type': 'text/plain' }, body: '{"new_edits":false,"docs":[]}' };
  assert.equal((await fetch(`${feed.url}/books/_bulk_docs`, form)).status, 415);
});

test('a Unix socket is for its user alone, replaces what a killed process left, and nothing else', async () => {
  const database = await open();
  const directory = place();
  const socketPath = join(directory, 'feed.sock');
  const killed =
    'import { createServer } from "node:net"; createServer().listen(process.argv[1], () => process.kill(process.pid, "SIGKILL"));';
  spawnSync(process.execPath, ['--input-type=module', '-e', killed, socketPath]);
  assert.ok(statSync(socketPath).isSocket());
  const feed = await expose(database, { socketPath });
  assert.equal(statSync(socketPath).mode & 0o777, 0o600);
  assert.equal(feed.url, `http+unix://${encodeURIComponent(socketPath)}`);
  const [answer] = await once(get({ socketPath, path: '/_all_dbs' }), 'response');
  assert.deepEqual(JSON.parse((await rest(answer)).text), ['books']);
  await assert.rejects(exposePlainfoldFeed({ database, socketPath }), /EADDRINUSE/);
  await feed.close();
  const file = join(directory, 'file');
  writeFileSync(file, 'kept');
  await assert.rejects(exposePlainfoldFeed({ database, socketPath: file }), /EADDRINUSE/);
});

test('clients that stall cost no memory, and lose their connections', async () => {
  const database = await open();
  const title = 'x'.repeat(5000);
  for (let from = 0; from < 20_000; from += 2000)
    await database.books.bulkInsert(books(2000, from).map((book) => ({ ...book, title })));
  await attach(await database.books.findOne('b000000').exec(), 'f', new Uint8Array(50 << 20));
  const feed = await expose(database, { stallTimeout: 400 });
  const used = () => {
    collectGarbage();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  await ask(feed, '/books/_changes?limit=1');
  const before = used();
  const rev = (await database.books.findOne('b000000').exec()).revision;
  const paths = [
    '/books/_changes?include_docs=true',
    '/books/_changes?feed=continuous&include_docs=true&heartbeat=100',
    `/books/b000000/f?rev=${rev}`,
  ];
  const keys = JSON.stringify({ keys: books(20_000).map((book) => book.isbn) });
  const requests = [
    ...paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`),
    'POST /books/_all_docs?include_docs=true HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n' +
      `Content-Length: ${keys.length}\r\n\r\n${keys}`,
  ];
  const stalled = [0, 1, 2]
    .flatMap(() => requests)
    .map((text) => {
      const socket = connect(feed.port, '127.0.0.1').on('error', () => {});
      socket.write(text);
      return socket;
    });
  await Promise.all(stalled.map((socket) => once(socket, 'readable')));
  const during = used();
  assert.ok(during - before < 30 << 20, `${(during - before) >> 20} MiB for 1 GB of answers`);
  // Who reads nothing hears of the end only by writing.
  await until(() => {
    for (const socket of stalled) if (!socket.destroyed) socket.write('\r\n');
    return stalled.every((socket) => socket.destroyed);
  });
  assert.equal((await ask(feed, '/books')).status, 200);
});

test('clients that send nothing, or never finish a request, lose their connections', async () => {
  const feed = await expose(await open(), { stallTimeout: 400, write: true });
  const head = 'POST /books/_bulk_docs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n';
  const sockets = [
    '',
    'GET / HT',
    `${head}Content-Length: 100\r\n\r\n{`,
    `${head}Transfer-Encoding: chunked\r\n\r\n`,
  ].map((text) => {
    const socket = connect(feed.port, '127.0.0.1').on('error', () => {});
    socket.write(text);
    return socket.resume();
  });
  await Promise.all(sockets.map((socket) => once(socket, 'close')));
  assert.equal((await ask(feed, '/')).status, 200);
});

test('requests take no more memory together than the longest may', async () => {
  const room = new Room(100);
  const [events, releases] = [[], []];
  const hold = (name, bytes) =>
    room.hold(bytes, () => {
      events.push(name);
      return new Promise((resolve, reject) => releases.push({ resolve, reject }));
    });
  const [a, b, c, d] = [hold('a', 60), hold('b', 1000), hold('c', 10), hold('d', 90)];
  assert.deepEqual(events, ['a']);
  releases[0].reject(new Error('it fails'));
  await assert.rejects(a, /it fails/);
  assert.deepEqual(events, ['a', 'b']);
  releases[1].resolve('done');
  assert.equal(await b, 'done');
  assert.deepEqual(events, ['a', 'b', 'c', 'd']);
  for (const { resolve } of releases) resolve();
  await Promise.all([c, d]);
});

test('clients that go away leave nothing behind', async () => {
  const database = await open();
  await database.books.bulkInsert(books(3));
  const feed = await expose(database);
  await ask(feed, '/books');
  const before = [database.eventBulks$.observers.length, database.books.onClose.length];
  for (let round = 0; round < 50; round += 1) {
    const answer = await answerOf(`${feed.url}/books/_changes?feed=continuous&heartbeat=100`);
    await once(answer, 'data');
    answer.destroy();
  }
  await database.books.insert({ isbn: 'wakes' });
  assert.deepEqual([database.eventBulks$.observers.length, database.books.onClose.length], before);
  assert.equal((await ask(feed, '/books')).status, 200);
});

test('a storage that fails is told by its code, and a feed that breaks off does not look whole', async () => {
  const memory = getRxStorageMemory();
  let failing = () => false;
  const createStorageInstance = async (params) => {
    const instance = await memory.createStorageInstance(params);
    const query = instance.query.bind(instance);
    instance.query = async (prepared) => {
      if (failing()) throw Object.assign(new Error('disk error at "a secret title"\nmore'), { code: 'EIO' });
      return query(prepared);
    };
    return instance;
  };
  const database = await open(['books'], { storage: { ...memory, createStorageInstance } });
  await database.books.bulkInsert(books(2000));
  const feed = await expose(database);
  let calls = 0;
  failing = () => (calls += 1) === 3;
  const { text, whole } = await rest(await answerOf(`${feed.url}/books/_changes?include_docs=true`));
  assert.ok(!whole && text.includes('b000000') && !text.includes('last_seq'));
  failing = () => true;
  const { status, json } = await ask(feed, '/books/_changes');
  assert.deepEqual([status, json], [500, { error: 'storage_error', reason: 'GET /books/_changes: EIO' }]);
  calls = 0;
  failing = () => (calls += 1) === 3;
  const directory = join(place(), 'mirror');
  assert.equal(counts(await mirror(feed.url, directory)).failures, 0);
  assert.equal(folders(directory, 'books').length, 2000);
});

test('what fails once when a collection is first asked for does not fail forever', async () => {
  const memory = getRxStorageMemory();
  let failing = false;
  const createStorageInstance = async (params) => {
    const instance = await memory.createStorageInstance(params);
    const find = instance.findDocumentsById.bind(instance);
    instance.findDocumentsById = async (...args) => {
      if (failing) throw Object.assign(new Error('disk error'), { code: 'EIO' });
      return find(...args);
    };
    return instance;
  };
  const feed = await expose(await open(['books'], { storage: { ...memory, createStorageInstance } }));
  failing = true;
  assert.equal((await ask(feed, '/books')).status, 500);
  failing = false;
  assert.equal((await ask(feed, '/books')).status, 200);
});

test('a write between the comparison and the restore wins, and is reported', async () => {
  const { storage, hold } = withholding(getRxStorageMemory());
  const database = await open(['books'], { storage });
  const feed = await expose(database, { write: true });
  const held = hold();
  const restoring = ask(feed, '/books/_bulk_docs', {
    method: 'POST',
    json: {
      new_edits: false,
      docs: [
        { isbn: 'a', _rev: '1-old' },
        { isbn: 'b', _rev: '1-old' },
      ],
    },
  });
  const release = await held;
  await database.books.insert({ isbn: 'a', title: 'Newer' });
  release();
  const { json } = await restoring;
  assert.deepEqual(
    json.map(({ id, error }) => [id, error]),
    [['a', 'conflict']],
  );
  assert.equal((await database.books.findOne('a').exec()).title, 'Newer');
});

test('malformed requests are answered, and the next one too', async () => {
  const feed = await expose(await open(), { write: true, maxRequestBytes: 1000 });
  const post = (path, body, type = 'application/json') =>
    fetch(feed.url + path, { method: 'POST', body, headers: { 'content-type': type } });
  const statuses = await Promise.all([
    post('/books/_bulk_get', '{'),
    post('/books/_bulk_get', '[]'),
    post('/books/_bulk_get', '{"docs":[1]}'),
    post('/books/_all_docs', '{"keys":[1]}'),
    post('/books/_changes', '{}'),
    post('/books/_revs_diff', '{"a":1}'),
    post('/books/_bulk_docs', JSON.stringify({ docs: ['x'.repeat(2000)] })),
  ]);
  assert.deepEqual(
    statuses.map((answer) => answer.status),
    [400, 400, 400, 400, 400, 400, 413],
  );
  const socket = connect(feed.port, '127.0.0.1').on('error', () => {});
  socket.end('nonsense\r\n\r\n');
  await once(socket.resume(), 'close');
  assert.equal((await ask(feed, '/')).status, 200);
});
