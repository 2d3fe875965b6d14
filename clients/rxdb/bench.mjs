// One measurement of Plainfold or of RxDB's backup plugin on an RxDatabase in memory. `benches/rxdb.py` runs it.
//
//     node bench.mjs backup|live plainfold|plugin|nobody DIRECTORY DOCUMENTS SIZE BATCH
//
// `backup` writes this many documents once, and prints the seconds, and the delay of the event loop meanwhile. `live`
// writes one document at a time, and prints the delays until its file exists. All in milliseconds except the seconds.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { addRxPlugin, createRxDatabase } from 'rxdb';
import { RxDBBackupPlugin } from 'rxdb/plugins/backup';
import { getRxStorageMemory } from 'rxdb/plugins/storage-memory';
import { exposePlainfoldFeed } from 'plainfold-rxdb';

/** What the members around a document's text take. */
const FRAME = 134;

/** The number of documents that the application writes at once. */
const FILL = 1000;

const [what, who, directory, ...numbers] = process.argv.slice(2);
const [documents, size, batchSize] = numbers.map(Number);
addRxPlugin(RxDBBackupPlugin);
const database = await createRxDatabase({ name: 'bench', storage: getRxStorageMemory(), multiInstance: false });
const properties = { id: { type: 'string', maxLength: 20 }, number: { type: 'number' }, text: { type: 'string' } };
const { documents: collection } = await database.addCollections({
  documents: { schema: { version: 0, primaryKey: 'id', type: 'object', properties } },
});
const document = (number) => ({ id: `doc-${String(number).padStart(7, '0')}`, number, text: 'x'.repeat(size - FRAME) });

/** Starts Plainfold; resolves at its end. */
function mirror(url, ...more) {
  const child = spawn(process.env.PLAINFOLD, ['mirror', url, directory, '--progress', 'never', ...more], {
    stdio: 'ignore',
  });
  const ended = new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`plainfold ended with ${code}`))));
  });
  return { ended, stop: () => child.kill('SIGTERM') };
}

/** Runs one side once; nobody does nothing for a second. */
async function once() {
  if (who === 'nobody') return pause(1000);
  if (who === 'plugin') return database.backup({ live: false, directory, batchSize }).awaitInitialBackup();
  const feed = await exposePlainfoldFeed({ database, port: 0 });
  return mirror(feed.url).ended;
}

async function backup() {
  for (let first = 1; first <= documents; first += FILL) {
    const count = Math.min(FILL, documents - first + 1);
    await collection.bulkInsert(Array.from({ length: count }, (_, index) => document(first + index)));
  }
  const delay = monitorEventLoopDelay({ resolution: 1 });
  const before = process.cpuUsage();
  const begun = performance.now();
  delay.enable();
  await once();
  delay.disable();
  const seconds = (performance.now() - begun) / 1000;
  const { user, system } = process.cpuUsage(before);
  const [median, p99, worst] = [delay.percentile(50), delay.percentile(99), delay.max].map(
    (nanoseconds) => nanoseconds / 1e6,
  );
  return { seconds, median, p99, worst, cpu: (user + system) / 1e6 };
}

async function live() {
  await collection.insert(document(0));
  const file = ({ id }) =>
    who === 'plugin' ? join(directory, id, 'document.json') : join(directory, 'documents', id, 'document.json');
  const there = async (one) => {
    while (!existsSync(file(one))) await new Promise(setImmediate);
  };
  let following;
  if (who === 'plugin') await database.backup({ live: true, directory, batchSize }).awaitInitialBackup();
  else following = mirror((await exposePlainfoldFeed({ database, port: 0 })).url, '--live');
  await there(document(0));
  const delays = [];
  for (let number = 1; number <= documents; number += 1) {
    await collection.insert(document(number));
    const begun = performance.now();
    await there(document(number));
    delays.push(performance.now() - begun);
  }
  following?.stop();
  await following?.ended;
  delays.sort((one, other) => one - other);
  return { median: delays[Math.floor(documents / 2)], p99: delays[Math.floor(documents * 0.99)] };
}

console.log(JSON.stringify(await { backup, live }[what]()));
process.exit(0);
