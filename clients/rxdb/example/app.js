// A library's catalogue in RxDB, exposed to Plainfold. It runs until its input ends: every line of it is a book's
// title.
//
//     node example/app.js [--write] [--empty]
//
// PORT is where the feed listens [default: 5990]. `--write` lets Plainfold restore, `--empty` begins without books.

import { createInterface } from 'node:readline';
import { addRxPlugin, createRxDatabase } from 'rxdb';
import { RxDBAttachmentsPlugin } from 'rxdb/plugins/attachments';
import { getRxStorageMemory } from 'rxdb/plugins/storage-memory';
import { exposePlainfoldFeed } from 'plainfold-rxdb';

addRxPlugin(RxDBAttachmentsPlugin);

const schema = {
  version: 0,
  primaryKey: 'id',
  type: 'object',
  properties: { id: { type: 'string', maxLength: 100 }, title: { type: 'string' }, shelf: { type: 'string' } },
  required: ['id', 'title'],
  attachments: {},
};

const database = await createRxDatabase({ name: 'library', storage: getRxStorageMemory() });
const { books } = await database.addCollections({ books: { schema }, members: { schema } });

if (!process.argv.includes('--empty')) {
  const book = await books.insert({ id: 'book-1', title: 'Tides of the northern coast', shelf: 'A3' });
  await book.putAttachment({
    id: 'cover.bin',
    type: 'application/octet-stream',
    data: new Blob([Uint8Array.of(0, 128, 255)]),
  });
  await books.insert({ id: 'book-2', title: 'Bread', shelf: 'B1' });
  await database.members.insert({ id: 'book-1', title: 'A member with the id of a book' });
}

const feed = await exposePlainfoldFeed({
  database,
  port: Number(process.env.PORT ?? 5990),
  write: process.argv.includes('--write'),
});
console.log(`plainfold mirror ${feed.url} ./backup`);

for await (const title of createInterface({ input: process.stdin })) {
  const { id } = await books.insert({ id: `book-${Date.now()}`, title });
  console.log(`${id}: ${await books.count().exec()} books`);
}
await database.close();
