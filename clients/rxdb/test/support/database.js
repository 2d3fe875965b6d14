// Real databases of RxDB, one for each test.

import { randomBytes } from 'node:crypto';
import { after } from 'node:test';
import { addRxPlugin, createRxDatabase } from 'rxdb';
import { RxDBAttachmentsPlugin } from 'rxdb/plugins/attachments';
import { RxDBBackupPlugin } from 'rxdb/plugins/backup';
import { RxDBCleanupPlugin } from 'rxdb/plugins/cleanup';
import { RxDBMigrationPlugin } from 'rxdb/plugins/migration-schema';
import { getRxStorageMemory } from 'rxdb/plugins/storage-memory';
import { exposePlainfoldFeed } from 'plainfold-rxdb';

for (const plugin of [RxDBAttachmentsPlugin, RxDBBackupPlugin, RxDBCleanupPlugin, RxDBMigrationPlugin])
  addRxPlugin(plugin);

export const schema = (more = {}) => ({
  version: 0,
  primaryKey: 'isbn',
  type: 'object',
  properties: { isbn: { type: 'string', maxLength: 200 }, title: { type: 'string' }, pages: { type: 'number' } },
  required: ['isbn'],
  attachments: {},
  ...more,
});

export const unused = () => `t${randomBytes(8).toString('hex')}`;

/** A database that is closed after the tests. `collections` are names, or creators by name. */
export async function open(collections = ['books'], options = {}) {
  const database = await createRxDatabase({
    name: unused(),
    storage: getRxStorageMemory(),
    multiInstance: false,
    ...options,
  });
  after(() => database.close());
  const creators = Array.isArray(collections)
    ? Object.fromEntries(collections.map((name) => [name, { schema: schema() }]))
    : collections;
  await database.addCollections(creators);
  return database;
}

export async function expose(database, options = {}) {
  const feed = await exposePlainfoldFeed({
    database,
    ...(options.socketPath === undefined && { port: 0 }),
    ...options,
  });
  after(() => feed.close());
  return feed;
}

export const bytes = (count) => Uint8Array.from({ length: count }, (_, index) => index);

export async function attach(document, id, data, type = 'application/octet-stream') {
  const current = document.getLatest();
  await current.putAttachment({ id, type, data: new Blob([data], { type }) });
}

export const books = (count, from = 0) =>
  Array.from({ length: count }, (_, index) => ({
    isbn: `b${String(from + index).padStart(6, '0')}`,
    title: `Title ${from + index}`,
    pages: index,
  }));

/** A request; the answer's JSON with its status. */
export async function ask(feed, path, { method = 'GET', json, headers = {} } = {}) {
  const body = json === undefined ? undefined : JSON.stringify(json);
  const answer = await fetch(feed.url + path, {
    method,
    body,
    headers: { ...(body && { 'content-type': 'application/json' }), ...headers },
  });
  return { status: answer.status, headers: answer.headers, json: await answer.json() };
}
