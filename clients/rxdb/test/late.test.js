// Writes that become visible behind the place that a reader has reached.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { getChangedDocumentsSince } from 'rxdb';
import { getRxStorageMemory } from 'rxdb/plugins/storage-memory';
import { ask, expose, open } from './support/database.js';
import { withholding } from './support/late.js';
import { Live, folders, mirror, place } from './support/plainfold.js';

/** A database in which `late` has an earlier time than `early`, and is visible only after `release`. */
async function overtaken() {
  const { storage, hold } = withholding(getRxStorageMemory());
  const database = await open(['books'], { storage });
  const feed = await expose(database);
  await ask(feed, '/books');
  const held = hold();
  const written = database.books.insert({ isbn: 'late' });
  const release = await held;
  await database.books.insert({ isbn: 'early' });
  const finish = async () => {
    release();
    await written;
    const [late, early] = await Promise.all(['late', 'early'].map((id) => database.books.findOne(id).exec()));
    assert.ok(late.toJSON(true)._meta.lwt < early.toJSON(true)._meta.lwt, 'the later one was overtaken');
  };
  return { database, feed, finish };
}

test("RxDB's own checkpoint misses a write that was overtaken, and the feed does not", async () => {
  const { database, feed, finish } = await overtaken();
  const storage = database.books.storageInstance;
  const changes = async (since) => (await ask(feed, `/books/_changes?since=${since}`)).json;
  const { checkpoint } = await getChangedDocumentsSince(storage, 10);
  const before = await changes('0');
  assert.deepEqual(
    before.results.map((row) => row.id),
    ['early'],
  );
  await finish();
  assert.deepEqual((await getChangedDocumentsSince(storage, 10, checkpoint)).documents, []);
  const after = await changes(before.last_seq);
  assert.ok(after.results.some((row) => row.id === 'late'));
  assert.deepEqual((await changes(after.last_seq)).results, []);
});

test('a reader that comes back after a restart of the feed goes back a little', async () => {
  const { database, feed, finish } = await overtaken();
  const { last_seq: last } = (await ask(feed, '/books/_changes')).json;
  await finish();
  await feed.close();
  const { results } = (await ask(await expose(database), `/books/_changes?since=${last}`)).json;
  assert.ok(results.some((row) => row.id === 'late'));
});

test('a mirror has what was overtaken, once and live', async () => {
  const [once, live] = [await overtaken(), await overtaken()];
  const [directory, followed] = [join(place(), 'mirror'), join(place(), 'mirror')];
  await mirror(once.feed.url, directory);
  await once.finish();
  await mirror(once.feed.url, directory);
  assert.deepEqual(folders(directory, 'books'), ['early', 'late']);
  const follower = await Live.start(live.feed.url, followed);
  await follower.event((event) => event.documentId === 'early');
  await live.finish();
  await follower.event((event) => event.documentId === 'late');
});
