// A pouchdb-server, which speaks CouchDB's protocol: the one that the tests in Rust install.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { place, until } from './plainfold.js';

const installed = '../../../../target/test-servers/pouchdb-4.2.0/node_modules/pouchdb-server/bin/pouchdb-server';
const path = process.env.POUCHDB_SERVER ?? fileURLToPath(new URL(installed, import.meta.url));

/** The reason why it is missing, for the test that is skipped then. */
export const noCouch = !existsSync(path) && 'no pouchdb-server: `cargo test` installs it, or name it in POUCHDB_SERVER';

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** The URL of a new one without databases, in memory, ended after the tests. */
export async function couch() {
  const port = await freePort();
  const child = spawn(process.execPath, [path, '-n', '-m', '-o', '127.0.0.1', '-p', String(port)], {
    cwd: place(),
    stdio: 'ignore',
  });
  after(() => child.kill());
  const url = `http://127.0.0.1:${port}`;
  await until(() =>
    fetch(url).then(
      (answer) => answer.ok,
      () => false,
    ),
  );
  return url;
}
