// The types, checked by `npm run types` and by the tests.

import { createRxDatabase } from 'rxdb';
import { getRxStorageMemory } from 'rxdb/plugins/storage-memory';
import { exposePlainfoldFeed } from 'plainfold-rxdb';
import type { PlainfoldFeed } from 'plainfold-rxdb';

const database = await createRxDatabase({ name: 'types', storage: getRxStorageMemory() });
const feed: PlainfoldFeed = await exposePlainfoldFeed({ database, port: 0, collections: ['books'], write: true });
const url: string = feed.url;
await exposePlainfoldFeed({
  database,
  socketPath: '/run/feed.sock',
  token: 'x'.repeat(16),
  stallTimeout: 1,
  maxRequestBytes: 1,
});
// @ts-expect-error A database is needed.
await exposePlainfoldFeed({ port: 0 });
// @ts-expect-error Names come as a list.
await exposePlainfoldFeed({ database, port: 0, collections: 'books' });
await feed.close();
console.log(url);
