// Every fault of RxDB's backup plugin, shown in the plugin and beside it in Plainfold, in one run.
//
// Prints a table in Markdown, or with `--json` its rows. It is a process of its own, because some of these faults end
// the process that they happen in.

import fs, { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { addRxPlugin, createRxDatabase } from 'rxdb';
import { RxDBAttachmentsPlugin } from 'rxdb/plugins/attachments';
import { RxDBBackupPlugin } from 'rxdb/plugins/backup';
import { RxDBCleanupPlugin } from 'rxdb/plugins/cleanup';
import { getRxStorageMemory } from 'rxdb/plugins/storage-memory';
import { exposePlainfoldFeed } from 'plainfold-rxdb';
import { Live, folders, mirror, plainfold } from './support/plainfold.js';

for (const plugin of [RxDBAttachmentsPlugin, RxDBBackupPlugin, RxDBCleanupPlugin]) addRxPlugin(plugin);

// Without a listener a rejection that nobody handles ends the process.
process.on('unhandledRejection', () => {});

const base = mkdtempSync(join(tmpdir(), 'plainfold-faults-'));
process.on('exit', () => rmSync(base, { recursive: true, force: true }));
let count = 0;
const place = () => join(base, String((count += 1)), 'backup');

const properties = { isbn: { type: 'string', maxLength: 100 }, title: { type: 'string' } };
const schema = { version: 0, primaryKey: 'isbn', type: 'object', properties, attachments: {} };

async function open(names = ['books'], storage = getRxStorageMemory()) {
  const database = await createRxDatabase({ name: `faults${(count += 1)}`, storage, multiInstance: false });
  await database.addCollections(Object.fromEntries(names.map((name) => [name, { schema }])));
  return database;
}

const attach = async (document, id, data) =>
  document.getLatest().putAttachment({ id, type: 'x/y', data: new Blob([data]) });

async function backUp(database, options = {}) {
  const directory = place();
  const state = database.backup({ live: false, directory, attachments: true, ...options });
  await state.awaitInitialBackup();
  return directory;
}

async function mirrored(database, options = {}, given = undefined) {
  const directory = place();
  const feed = given ?? (await exposePlainfoldFeed({ database, port: 0, ...options }));
  await mirror(feed.url, directory);
  return directory;
}

const title = (...parts) => JSON.parse(readFileSync(join(...parts, 'document.json'))).title;
const sha256 = (data) => createHash('sha256').update(data).digest('hex').slice(0, 8);

/** What each fault comes to: a sentence on the plugin, and one on Plainfold. */
const faults = {
  'Two collections hold a document with the id `same`': async () => {
    const database = await open(['books', 'members']);
    await database.books.insert({ isbn: 'same', title: 'A book' });
    await database.members.insert({ isbn: 'same', title: 'A member' });
    const [theirs, ours] = [await backUp(database), await mirrored(database)];
    const copies = folders(theirs).filter((name) => existsSync(join(theirs, name, 'document.json')));
    const kept = ['books', 'members'].map((name) => title(ours, name, 'same'));
    return [
      `${copies.length} document is left: ${title(theirs, 'same')}`,
      `${kept.length} documents: ${kept.join(', ')}`,
    ];
  },
  "A document's id is `../escaped`": async () => {
    const database = await open();
    await database.books.insert({ isbn: '../escaped' });
    const [theirs, ours] = [await backUp(database), await mirrored(database)];
    const outside = (directory) => folders(directory, '..').filter((name) => name !== basename(directory));
    return [
      `written outside the directory: ../${outside(theirs)}`,
      `${outside(ours).length} folders outside; inside, ${folders(ours, 'books')}`,
    ];
  },
  'An attachment holds the 256 bytes 0 to 255': async () => {
    const database = await open();
    const data = Uint8Array.from({ length: 256 }, (_, index) => index);
    await attach(await database.books.insert({ isbn: 'a' }), 'f', data);
    const files = [join(await backUp(database), 'a'), join(await mirrored(database), 'books/a')].map((folder) =>
      readFileSync(join(folder, 'attachments/f')),
    );
    return files.map((file) => `${file.length} bytes, ${sha256(file) === sha256(data) ? 'unchanged' : 'changed'}`);
  },
  'An attachment begins with a byte order mark': async () => {
    const database = await open();
    const data = Buffer.from('\ufefftext');
    await attach(await database.books.insert({ isbn: 'a' }), 'f', data);
    const files = [join(await backUp(database), 'a'), join(await mirrored(database), 'books/a')].map((folder) =>
      readFileSync(join(folder, 'attachments/f')),
    );
    return files.map((file) => `${file.length} of ${data.length} bytes`);
  },
  'Somebody reads while a document is rewritten': async () => {
    const database = await open();
    const book = await database.books.insert({ isbn: 'a', title: 'x'.repeat(4 << 20) });
    const feed = await exposePlainfoldFeed({ database, port: 0 });
    const [theirs, ours] = [place(), place()];
    const state = database.backup({ live: false, directory: theirs });
    await state.awaitInitialBackup();
    await mirror(feed.url, ours);
    await book.incrementalPatch({ title: 'y'.repeat(4 << 20) });
    const missing = await atEachWrite(
      (file) => !existsSync(file),
      () => state.persistOnce(),
    );
    const torn = await meanwhile(
      () => JSON.parse(readFileSync(join(ours, 'books/a/document.json'))),
      () => mirror(feed.url, ours),
    );
    return [missing ? 'it is not there' : 'it is there', torn ? 'it is torn' : 'it is always intact'];
  },
  'Only the collection `members` is selected': async () => {
    const database = await open(['books', 'members']);
    await database.books.insert({ isbn: 'b' });
    await database.members.insert({ isbn: 'm' });
    const theirs = await backUp(database, { collections: ['members'] });
    const ours = await mirrored(database, { collections: ['members'] });
    const kept = ['b', 'm'].filter((id) => existsSync(join(theirs, id, 'document.json')));
    return [
      `documents of ${kept.length} collections`,
      `documents of ${folders(ours).filter((name) => !name.startsWith('.')).length} collection`,
    ];
  },
  'One read or write fails once': async () => {
    const outcomes = [];
    for (const follow of [followPlugin, followPlainfold]) {
      const memory = getRxStorageMemory();
      let broken = true;
      const createStorageInstance = async (params) => {
        const instance = await memory.createStorageInstance(params);
        const read = instance.getAttachmentData.bind(instance);
        instance.getAttachmentData = async (...args) => {
          if (!broken) return read(...args);
          broken = false;
          throw new Error('the disk hiccups');
        };
        return instance;
      };
      const database = await open(['books'], { ...memory, createStorageInstance });
      outcomes.push(await follow(database));
    }
    return outcomes;
  },
  'An attachment is called `plans/ground.png`': async () => {
    const database = await open();
    await attach(await database.books.insert({ isbn: 'a' }), 'plans/ground.png', 'x');
    await database.books.insert({ isbn: 'b' });
    const directory = place();
    const state = database.backup({ live: false, directory, attachments: true });
    const failed = await state.persistRunning.then(
      () => '',
      (error) => error.code,
    );
    const ours = await mirrored(database);
    return [
      `it fails (${failed}), and the backup ends there`,
      `a file ${folders(ours, 'books')
        .map((id) => join(id, 'attachments', 'plans%2Fground.png'))
        .find((file) => existsSync(join(ours, 'books', file)))}`,
    ];
  },
  'A document is deleted, and cleaned up before the next backup': async () => {
    const database = await open();
    await database.books.bulkInsert([{ isbn: 'a' }, { isbn: 'b' }]);
    const feed = await exposePlainfoldFeed({ database, port: 0 });
    const directory = await backUp(database);
    const ours = await mirrored(database, {}, feed);
    await (await database.books.findOne('a').exec()).remove();
    await database.books.cleanup(0);
    await database.backup({ live: false, directory }).awaitInitialBackup();
    await mirror(feed.url, ours);
    const kept = [join(directory, 'a'), join(ours, 'books/a')].map((folder) =>
      existsSync(join(folder, 'document.json')),
    );
    return kept.map((is) => (is ? 'it stays in the backup' : 'it is gone'));
  },
  'The backup is to be restored': async () => {
    const database = await open();
    const {
      success: [book],
    } = await database.books.bulkInsert([{ isbn: 'a' }, { isbn: 'b' }]);
    await attach(book, 'f', Uint8Array.of(0, 255));
    const state = database.backup({ live: false, directory: place() });
    const names = ['import', 'restore', 'importJSON', 'load'].filter((name) => typeof state[name] === 'function');
    const ours = await mirrored(database);
    const target = await open();
    const feed = await exposePlainfoldFeed({ database: target, port: 0, write: true });
    await plainfold(['restore', ours, feed.url]);
    const equal = (await plainfold(['verify', ours, '--against', feed.url])).code === 0;
    return [
      names.length === 0 ? 'the plugin cannot do that' : names.join(),
      `${await target.books.count().exec()} documents, proven ${equal ? 'equal' : 'different'}`,
    ];
  },
};

/** Whether something is so of each `document.json` when this process begins to write it. */
async function atEachWrite(isSo, work) {
  const { writeFile } = fs;
  let always = true;
  fs.writeFile = (file, ...more) => {
    if (file.endsWith('document.json')) always &&= isSo(file);
    return writeFile(file, ...more);
  };
  syncBuiltinESMExports();
  await work();
  fs.writeFile = writeFile;
  syncBuiltinESMExports();
  return always;
}

/** Whether a check fails at any time during an operation. */
async function meanwhile(look, work) {
  let [over, failed] = [false, false];
  const done = work().finally(() => (over = true));
  while (!over) {
    try {
      look();
    } catch {
      failed = true;
    }
    await new Promise(setImmediate);
  }
  await done;
  return failed;
}

async function followPlugin(database) {
  const directory = place();
  const state = database.backup({ live: true, directory, attachments: true });
  await state.awaitInitialBackup();
  const rejected = once(process, 'unhandledRejection');
  await attach(await database.books.insert({ isbn: 'a' }), 'f', 'x');
  await rejected;
  await database.books.insert({ isbn: 'later' });
  const stopped = await state.persistOnce().then(
    () => false,
    () => !existsSync(join(directory, 'later/document.json')),
  );
  return `${stopped ? 'it stops permanently' : 'it continues'}; its unhandled rejection ends the application`;
}

async function followPlainfold(database) {
  const feed = await exposePlainfoldFeed({ database, port: 0 });
  const live = await Live.open(feed.url, place());
  await attach(await database.books.insert({ isbn: 'a' }), 'f', 'x');
  await database.books.insert({ isbn: 'later' });
  await live.event((event) => event.documentId === 'later');
  const { files } = await live.event((event) => event.documentId === 'a' && event.files.length === 2);
  await live.stop();
  return `it tries again: ${basename(files[1])} and later writes are there`;
}

const rows = [];
for (const [fault, show] of Object.entries(faults)) rows.push([fault, ...(await show())]);
const table = [['What happens', "RxDB's backup plugin 17.6.0", 'Plainfold'], ['---', '---', '---'], ...rows];
console.log(
  process.argv.includes('--json') ? JSON.stringify(rows) : table.map((row) => `| ${row.join(' | ')} |`).join('\n'),
);
process.exit(0);
