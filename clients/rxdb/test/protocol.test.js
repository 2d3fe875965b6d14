// What the feed answers, request by request.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { get } from 'node:http';
import { createInterface } from 'node:readline';
import test from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fromSeq, toSeq } from '../src/position.js';
import { ask, attach, books, bytes, expose, open, schema } from './support/database.js';

const rowsOf = async (feed, query = '') => (await ask(feed, `/books/_changes?include_docs=true${query}`)).json;

async function* follow(feed, query = '') {
  const [answer] = await once(get(`${feed.url}/books/_changes?feed=continuous&include_docs=true${query}`), 'response');
  try {
    for await (const line of createInterface({ input: answer })) yield line && JSON.parse(line);
  } finally {
    answer.destroy();
  }
}

test('the collections are the databases, those added later too, and a list restricts them', async () => {
  const database = await open(['books', 'members']);
  const [all, some] = [await expose(database), await expose(database, { collections: ['members', 'later'] })];
  assert.deepEqual((await ask(all, '/_all_dbs')).json, ['books', 'members']);
  assert.deepEqual((await ask(some, '/_all_dbs')).json, ['members']);
  assert.equal((await ask(some, '/books')).status, 404);
  await database.addCollections({ later: { schema: database.books.schema.jsonSchema } });
  assert.deepEqual((await ask(some, '/_all_dbs')).json, ['later', 'members']);
});

test('a feed tells each document once, in the order of its last write, deletions too', async () => {
  const database = await open();
  await database.books.bulkInsert(books(1200));
  await (await database.books.findOne('b000003').exec()).incrementalPatch({ title: 'Revised' });
  await (await database.books.findOne('b000002').exec()).remove();
  const { results, last_seq: last } = await rowsOf(await expose(database));
  assert.equal(results.length, 1200);
  assert.equal(new Set(results.map((row) => row.id)).size, 1200);
  assert.deepEqual(
    results.slice(-2).map((row) => [row.id, row.deleted]),
    [
      ['b000003', undefined],
      ['b000002', true],
    ],
  );
  assert.equal(results.at(-1).seq, last);
  assert.equal(results.at(-1).doc._deleted, true);
  assert.equal(results.at(-1).changes[0].rev, results.at(-1).doc._rev);
});

test('since continues after a place, limit ends early, and both together read everything', async () => {
  const database = await open();
  await database.books.bulkInsert(books(230));
  const feed = await expose(database);
  let [since, seen] = ['0', []];
  for (;;) {
    const { results, last_seq: last } = await rowsOf(feed, `&limit=70&since=${encodeURIComponent(since)}`);
    if (results.length === 0) break;
    assert.ok(results.length <= 70);
    seen.push(...results.map((row) => row.id));
    since = last;
  }
  assert.deepEqual(
    seen,
    books(230).map((book) => book.isbn),
  );
  assert.deepEqual((await rowsOf(feed, '&since=now')).results, []);
});

test('a place of another database is refused in the words by which Plainfold knows to read everything', async () => {
  const [one, other] = [await expose(await open()), await expose(await open())];
  const { last_seq: last } = await rowsOf(one);
  for (const since of [last, 'nonsense', '12-abc', `${last}.x`]) {
    const { status, json } = await ask(other, `/books/_changes?since=${encodeURIComponent(since)}`);
    assert.equal(status, 400);
    assert.match(json.reason, /Malformed sequence/);
  }
});

test('a place from before the time after which RxDB cleans deletions up is refused', async () => {
  const database = await open();
  const feed = await expose(database);
  const { instance_start_time: origin } = (await ask(feed, '/books')).json;
  const place = fromSeq(origin, (await rowsOf(feed)).last_seq);
  const aged = (days) => toSeq(origin, { ...place, at: place.at - days * 24 * 3600_000 });
  assert.equal((await ask(feed, `/books/_changes?since=${aged(30)}`)).status, 200);
  assert.match((await ask(feed, `/books/_changes?since=${aged(32)}`)).json.reason, /Malformed sequence.*cleaned up/);
});

test('a cleanup that removes deletions before their time is told as a purge', async () => {
  const database = await open();
  const feed = await expose(database);
  const [before] = [(await ask(feed, '/books')).json];
  await database.books.bulkInsert(books(2));
  await (await database.books.findOne('b000000').exec()).remove();
  assert.equal((await ask(feed, '/books')).json.purge_seq, before.purge_seq);
  await database.books.cleanup(0);
  assert.notEqual((await ask(feed, '/books')).json.purge_seq, before.purge_seq);
});

test('the end of the feed stays the same while nothing is written, and differs after', async () => {
  const database = await open();
  const feed = await expose(database);
  const end = async () => (await ask(feed, '/books')).json.update_seq;
  await rowsOf(feed);
  const first = await end();
  assert.equal(await end(), first);
  await database.books.insert({ isbn: 'new' });
  assert.notEqual(await end(), first);
});

test('a collection that is removed and made again is another', async () => {
  const database = await open();
  const feed = await expose(database);
  await database.books.insert({ isbn: 'a' });
  const before = (await ask(feed, '/books')).json;
  await database.books.remove();
  assert.equal((await ask(feed, '/books')).status, 404);
  await database.addCollections({ books: { schema: schema() } });
  const now = (await ask(feed, '/books')).json;
  assert.notEqual(now.instance_start_time, before.instance_start_time);
  assert.equal(now.doc_count, 0);
});

test('a continuous feed tells what there is, then every write, and beats in between', async () => {
  const database = await open();
  await database.books.bulkInsert(books(2));
  const lines = follow(await expose(database), '&heartbeat=100');
  const next = async () => (await lines.next()).value;
  assert.equal((await next()).id, 'b000000');
  assert.equal((await next()).id, 'b000001');
  assert.equal(await next(), '');
  await database.books.insert({ isbn: 'later' });
  let row;
  do row = await next();
  while (row === '');
  assert.equal(row.id, 'later');
  await (await database.books.findOne('later').exec()).remove();
  do row = await next();
  while (row === '');
  assert.deepEqual([row.id, row.deleted], ['later', true]);
  await lines.return();
});

test('a heartbeat longer than a timer can be does not beat at once', async () => {
  const lines = follow(await expose(await open()), '&heartbeat=9999999999');
  assert.equal((await lines.next()).value, '');
  const second = lines.next().then(() => 'beats');
  assert.equal(await Promise.race([second, pause(300, 'waits')]), 'waits');
});

test('a continuous feed without a heartbeat ends normally when nothing comes', async () => {
  const database = await open();
  await database.books.insert({ isbn: 'a' });
  const lines = [];
  for await (const line of follow(await expose(database), '&timeout=100')) lines.push(line);
  assert.equal(lines.at(-1).pending, 0);
  assert.equal(lines.at(-1).last_seq, lines[0].seq);
});

test('a document is told as RxDB has it, and its attachments as CouchDB does beside that', async () => {
  const database = await open();
  const book = await database.books.insert({ isbn: 'a', title: 'T' });
  await attach(book, 'x.bin', bytes(256));
  const { doc } = (await rowsOf(await expose(database))).results[0];
  const { _attachments: attachments, ...rest } = doc;
  const { _attachments: own, ...data } = book.getLatest().toJSON(true);
  assert.deepEqual(rest, data);
  const digest = createHash('sha256').update(bytes(256)).digest('hex');
  assert.deepEqual(attachments['x.bin'], {
    ...own['x.bin'],
    content_type: 'application/octet-stream',
    digest: `sha256-${digest}`,
    stub: true,
  });
});

test('documents are found by id and revision, with their attachments or their history', async () => {
  const database = await open();
  const book = await database.books.insert({ isbn: 'a' });
  await attach(book, 'x', bytes(3));
  const rev = book.getLatest().revision;
  const feed = await expose(database);
  const get = async (query, docs) =>
    (await ask(feed, `/books/_bulk_get?${query}`, { method: 'POST', json: { docs } })).json.results.map(
      (one) => one.docs[0],
    );
  const [found, old, none] = await get('attachments=true', [
    { id: 'a', rev },
    { id: 'a', rev: '1-old' },
    { id: 'none' },
  ]);
  assert.equal(found.ok._attachments.x.data, Buffer.from(bytes(3)).toString('base64'));
  assert.deepEqual([old.error.error, none.error.error], ['not_found', 'not_found']);
  const [told] = await get('revs=true', [{ id: 'a', rev }]);
  assert.deepEqual(told.ok._revisions, { start: 2, ids: [rev.slice(2)] });
});

test('documents are listed by id, from a key, a page at a time, and found by their keys', async () => {
  const database = await open();
  await database.books.bulkInsert(books(5));
  await (await database.books.findOne('b000002').exec()).remove();
  const feed = await expose(database);
  const page = await ask(feed, `/books/_all_docs?limit=2&startkey=${encodeURIComponent('"b000001"')}`);
  assert.deepEqual(
    page.json.rows.map((row) => row.id),
    ['b000001', 'b000003'],
  );
  await database.books.insert({ isbn: 'c?d' });
  const odd = await fetch(`${feed.url}/books/_all_docs?limit=2&startkey="c?c"`);
  assert.deepEqual(
    (await odd.json()).rows.map((row) => row.id),
    ['c?d'],
  );
  const keys = ['b000002', 'none', 'b000004'];
  const { rows } = (await ask(feed, '/books/_all_docs?include_docs=true', { method: 'POST', json: { keys } })).json;
  assert.deepEqual(
    rows.map((row) => row.value?.deleted ?? row.error),
    [true, 'not_found', undefined],
  );
  assert.deepEqual([rows[0].doc, rows[2].doc.isbn], [null, 'b000004']);
  const changed = await ask(feed, '/books/_changes?filter=_doc_ids&include_docs=true', {
    method: 'POST',
    json: { doc_ids: ['b000004'] },
  });
  assert.equal(changed.json.results[0].doc.isbn, 'b000004');
});

test('a revision is known that is the present one, or lower than that', async () => {
  const database = await open();
  const book = await database.books.insert({ isbn: 'a' });
  await book.incrementalPatch({ title: 'x' });
  const rev = book.getLatest().revision;
  const json = { a: [rev, '1-old', '2-other', '3-newer'], none: ['1-x'] };
  const unknown = (await ask(await expose(database), '/books/_revs_diff', { method: 'POST', json })).json;
  assert.deepEqual(unknown, { a: { missing: ['2-other', '3-newer'] }, none: { missing: ['1-x'] } });
});

test('an attachment comes as its own bytes, whatever its name and type are', async () => {
  const database = await open();
  const book = await database.books.insert({ isbn: 'a/b c' });
  const large = new Uint8Array(3 << 20).map((_, index) => index * 7);
  await attach(book, 'grüße/1 2.bin', large, 'text/plain\r\nx-evil: 1');
  const feed = await expose(database);
  const path = `/books/${encodeURIComponent('a/b c')}/${encodeURIComponent('grüße/1 2.bin')}`;
  const answer = await fetch(`${feed.url}${path}?rev=${book.getLatest().revision}`);
  assert.equal(answer.headers.get('x-evil'), null);
  assert.deepEqual(new Uint8Array(await answer.arrayBuffer()), large);
  assert.equal((await ask(feed, `${path}?rev=1-old`)).status, 404);
  assert.equal((await ask(feed, '/books/none/x')).status, 404);
});

test('what is not served says so', async () => {
  const feed = await expose(await open());
  const said = async (path, options) => (await ask(feed, path, options)).status;
  assert.equal(await said('/_users'), 404);
  assert.equal(await said('/books/_design/x'), 404);
  assert.equal(await said('/books/_changes?feed=longpoll'), 400);
  assert.equal(await said('/books/_changes?filter=x'), 400);
  assert.equal(await said('/books/_changes?limit=-1'), 400);
  assert.equal(await said('/books', { method: 'DELETE' }), 405);
  assert.equal(await said('/books/_bulk_docs', { method: 'POST', json: { docs: [], new_edits: false } }), 405);
  assert.equal(await said('/%ff'), 400);
});

test('a full listing holds what is written again while it is read', async () => {
  const database = await open();
  await database.books.bulkInsert(books(2000));
  const feed = await expose(database);
  const [answer] = await once(get(`${feed.url}/books/_changes`), 'response');
  let text = '';
  answer.setEncoding('utf8').on('data', (piece) => (text += piece));
  await once(answer, 'data');
  const last = await database.books.findOne('b001999').exec();
  await last.incrementalPatch({ title: 'Revised' });
  await once(answer, 'end');
  const ids = new Set(JSON.parse(text).results.map((row) => row.id));
  assert.equal(ids.size, 2000);
  assert.ok(ids.has('b001999'));
});
