// Backs up invented documents with RxDB's own plugin, and prints the seconds that the backup took.
//
//     node rxdb.mjs DIRECTORY DOCUMENTS SIZE BATCH

import { addRxPlugin, createRxDatabase } from "rxdb";
import { RxDBBackupPlugin } from "rxdb/plugins/backup";
import { getRxStorageMemory } from "rxdb/plugins/storage-memory";

const [directory, documents, size, batch] = process.argv.slice(2);
addRxPlugin(RxDBBackupPlugin);
const database = await createRxDatabase({ name: "bench", storage: getRxStorageMemory(), multiInstance: false });
const { documents: collection } = await database.addCollections({
  documents: {
    schema: {
      version: 0,
      primaryKey: "id",
      type: "object",
      properties: { id: { type: "string", maxLength: 20 }, number: { type: "number" }, text: { type: "string" } },
    },
  },
});
const document = (number) => ({ id: `doc-${String(number).padStart(7, "0")}`, number, text: "x".repeat(size - 134) });
for (let first = 1; first <= documents; first += 1000) {
  const count = Math.min(1000, documents - first + 1);
  await collection.bulkInsert(Array.from({ length: count }, (_, index) => document(first + index)));
}
const begun = performance.now();
const backup = database.backup({ live: false, directory, batchSize: Number(batch) });
await backup.awaitInitialBackup();
console.log(((performance.now() - begun) / 1000).toFixed(3));
await database.close();
process.exit(0);
