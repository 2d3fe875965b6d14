// An application with a database on disk, told by lines of JSON what to do.

import { createInterface } from 'node:readline';
import { LocalStorage } from 'node-localstorage';
import { addRxPlugin, createRxDatabase } from 'rxdb';
import { RxDBAttachmentsPlugin } from 'rxdb/plugins/attachments';
import { getRxStorageLocalstorage } from 'rxdb/plugins/storage-localstorage';
import { exposePlainfoldFeed } from 'plainfold-rxdb';

addRxPlugin(RxDBAttachmentsPlugin);
const [directory, port] = process.argv.slice(2);
const storage = getRxStorageLocalstorage({ localStorage: new LocalStorage(directory, Infinity) });
const database = await createRxDatabase({ name: 'shop', storage, multiInstance: false });
const properties = { isbn: { type: 'string', maxLength: 100 }, title: { type: 'string' }, pages: { type: 'number' } };
const { books } = await database.addCollections({
  books: { schema: { version: 0, primaryKey: 'isbn', type: 'object', properties, attachments: {} } },
});
const feed = await exposePlainfoldFeed({ database, port: Number(port) });
const say = (value) => console.log(JSON.stringify(value));
process.on('SIGTERM', async () => {
  await database.close();
  process.exit(0);
});
say({ url: feed.url });
for await (const line of createInterface({ input: process.stdin })) {
  const { insert, remove, attach, data } = JSON.parse(line);
  if (insert) await books.bulkInsert(insert);
  if (remove) await (await books.findOne(remove).exec()).remove();
  if (attach)
    await (
      await books.findOne(attach).exec()
    ).putAttachment({ id: 'f', type: 'x/y', data: new Blob([Buffer.from(data, 'base64')]) });
  say({ done: true });
}
