// A running RxDatabase as a server of CouchDB's protocol: options, listening, and the routing of requests.

import { createRequire } from 'node:module';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { once } from 'node:events';
import { chmodSync } from 'node:fs';
import { lstat, unlink } from 'node:fs/promises';
import { resolve } from 'node:path';
import { Answer, ClientGone } from './answer.js';
import { Collection } from './collection.js';
import { checkDoor, guard } from './guard.js';
import { Refusal, missing, unexpected } from './refusal.js';
import { Request } from './request.js';
import { Room } from './room.js';
import * as routes from './routes.js';
import { Restore } from './restore.js';

const { version } = createRequire(import.meta.url)('../package.json');

/** The time for which a client may read nothing, or send a request. */
const STALL_TIMEOUT = 300_000;

/** The longest request that writes. It contains a document with its attachments, in base64. */
const MAX_REQUEST_BYTES = 128 << 20;

/**
 * The time for which an idle connection is kept: longer than a client keeps it, so that it does not close during a
 * request.
 */
const KEEP_ALIVE = 120_000;

/** The time that a client may take for the head of a request, and the interval at which that is checked. */
const [HEAD_TIMEOUT, LOOK] = [60_000, 10_000];

/** The most connections at once. Plainfold needs a few for each collection. */
const MAX_CONNECTIONS = 256;

export async function exposePlainfoldFeed(options) {
  const { database, collections, port, socketPath, host = '127.0.0.1', token, write = false } = options;
  const { stallTimeout = STALL_TIMEOUT, maxRequestBytes = MAX_REQUEST_BYTES } = options;
  const settings = { collections, port, socketPath, host, token, write, stallTimeout, maxRequestBytes };
  if (typeof database?.requestIdlePromise !== 'function' || database.closed)
    throw new TypeError('exposePlainfoldFeed: database must be an open RxDatabase');
  if (collections !== undefined && !Array.isArray(collections))
    throw new TypeError('exposePlainfoldFeed: collections must be a list of names');
  for (const [name, value] of Object.entries({ stallTimeout, maxRequestBytes }))
    if (!(Number.isInteger(value) && value > 0 && value < 2 ** 31))
      throw new TypeError(`exposePlainfoldFeed: ${name} must be a whole number from 1 to 2147483647`);
  checkDoor(settings);
  const feed = new Feed(database, settings);
  database.onClose.push(() => feed.close());
  try {
    await feed.listen();
  } catch (error) {
    await feed.close();
    throw error;
  }
  return feed;
}

class Feed {
  #database;
  #settings;
  #admit;
  #server;
  #port;
  #room;
  #known = new Map();
  #closing;

  constructor(database, settings) {
    this.#database = database;
    this.#settings = settings;
    this.#admit = guard(settings);
    this.#room = new Room(settings.maxRequestBytes);
    const { stallTimeout } = settings;
    const timeouts = {
      keepAliveTimeout: KEEP_ALIVE,
      requestTimeout: stallTimeout,
      headersTimeout: Math.min(HEAD_TIMEOUT, stallTimeout),
      connectionsCheckingInterval: Math.min(LOOK, stallTimeout),
    };
    this.#server = createServer(timeouts, (request, response) => this.#take(request, response));
    this.#server.maxConnections = MAX_CONNECTIONS;
  }

  get port() {
    return this.#port;
  }

  get socketPath() {
    return this.#settings.socketPath;
  }

  get url() {
    const { host, socketPath } = this.#settings;
    if (socketPath !== undefined) return socketUrl(socketPath);
    return `http://${host.includes(':') ? `[${host}]` : host}:${this.#port}`;
  }

  async listen() {
    const { port, host, socketPath } = this.#settings;
    if (socketPath === undefined) {
      this.#server.listen(port, host);
    } else {
      await removeLeftOver(socketPath);
      this.#server.listen(socketPath);
    }
    await once(this.#server, 'listening');
    // At once: no client has been answered yet.
    if (socketPath !== undefined) chmodSync(socketPath, 0o600);
    else this.#port = this.#server.address().port;
    // A connection that cannot be accepted, because file descriptors are used up, must not end the application.
    this.#server.on('error', () => {});
  }

  close() {
    this.#closing ??= new Promise((closed) => {
      for (const collection of this.#known.values()) collection.close();
      this.#known.clear();
      this.#server.close(() => closed());
      this.#server.closeAllConnections();
    });
    return this.#closing;
  }

  async #take(incoming, response) {
    const answer = new Answer(response, this.#settings.stallTimeout);
    try {
      const request = new Request(incoming);
      this.#admit(request);
      const route = () => this.#route(request, answer);
      if (request.method === 'GET') await route();
      else await this.#room.hold(request.length ?? this.#settings.maxRequestBytes, route);
    } catch (error) {
      if (error instanceof ClientGone || answer.begun) {
        answer.breakOff();
        return;
      }
      const {
        status,
        error: word,
        message,
        headers,
      } = unexpected(error, `${incoming.method} ${incoming.url.split('?', 1)[0]}`);
      answer.json({ error: word, reason: message }, status, headers);
    }
  }

  async #route(request, answer) {
    const [name, endpoint, ...more] = request.path;
    const { method } = request;
    if (name === undefined && method === 'GET') {
      return routes.welcome(answer, { uuid: await this.#database.storageToken, version });
    }
    if (name === '_all_dbs' && endpoint === undefined && method === 'GET') return answer.json(this.#names());
    if (name === undefined || name.startsWith('_')) throw missing(`${method} /${request.path.join('/')} is not served`);
    if (endpoint === undefined && method === 'PUT') return this.#create(name);
    const collection = this.#collection(name);
    collection.ensureReadable();
    if (endpoint === undefined && method === 'GET') return answer.json(await collection.info());
    if (more.length === 0) {
      switch (`${method} ${endpoint}`) {
        case 'GET _changes':
        case 'POST _changes':
          return routes.changes(collection, request, answer);
        case 'GET _all_docs':
        case 'POST _all_docs':
          return routes.allDocs(collection, request, answer);
        case 'POST _bulk_get':
          return routes.bulkGet(collection, request, answer);
        case 'POST _revs_diff':
          return routes.revsDiff(collection, request, answer);
        case 'GET _revs_limit':
          return answer.json(1);
        case 'GET _security':
          throw missing('RxDB has no security objects');
        case 'PUT _security':
          return this.#secure(request, answer);
        case 'POST _bulk_docs':
          return this.#write(collection, request, answer);
      }
    }
    if (method !== 'GET')
      throw new Refusal(405, 'method_not_allowed', `${method} is not served here`, { allow: 'GET' });
    // CouchDB writes the slash in these ids as it is.
    const parts =
      endpoint === '_design' || endpoint === '_local'
        ? [`${endpoint}/${more[0]}`, ...more.slice(1)]
        : [endpoint, ...more];
    if (parts.length !== 2) throw missing(`GET /${request.path.join('/')} is not served`);
    return routes.attachment(collection, request, answer, ...parts);
  }

  #names() {
    const { collections } = this.#settings;
    return Object.keys(this.#database.collections)
      .filter((name) => collections?.includes(name) ?? true)
      .sort();
  }

  #collection(name) {
    const own = this.#names().includes(name) ? this.#database.collections[name] : undefined;
    const known = this.#known.get(name);
    if (known && known.rx === own && !known.closed) return known;
    known?.close();
    this.#known.delete(name);
    if (!own)
      throw new Refusal(
        404,
        'not_found',
        `Database does not exist: the application has no collection ${name} open, or does not expose it`,
      );
    const collection = new Collection(own);
    this.#known.set(name, collection);
    return collection;
  }

  #ensureWritable() {
    if (!this.#settings.write) {
      throw new Refusal(
        405,
        'method_not_allowed',
        'this feed is read-only: to restore into the application, expose it with { write: true }',
        { allow: 'GET' },
      );
    }
  }

  #create(name) {
    this.#ensureWritable();
    if (this.#names().includes(name))
      throw new Refusal(412, 'file_exists', 'The database could not be created, the file already exists.');
    throw new Refusal(
      400,
      'illegal_database_name',
      `the application has no collection ${name} open, or does not expose it: only it can add one, with its schema`,
    );
  }

  async #secure(request, answer) {
    this.#ensureWritable();
    const security = await request.object(this.#settings.maxRequestBytes);
    if (Object.keys(security).length > 0)
      throw new Refusal(
        400,
        'bad_request',
        "RxDB has no security objects: who may read a collection is the application's affair",
      );
    answer.json({ ok: true });
  }

  async #write(collection, request, answer) {
    this.#ensureWritable();
    const body = await request.object(this.#settings.maxRequestBytes);
    answer.json(await new Restore(collection).write(body), 201);
  }
}

/** A socket's URL: its absolute path in place of the host, with all characters escaped that a host cannot contain. */
function socketUrl(path) {
  const escape = (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
  return `http+unix://${encodeURIComponent(resolve(path)).replace(/[!'()*]/g, escape)}`;
}

/** Removes the socket of a process that was killed. Anything else there stays, and listening reports it. */
async function removeLeftOver(path) {
  const found = await lstat(path).catch(() => undefined);
  if (!found?.isSocket()) return;
  const alive = await new Promise((tell) => {
    const socket = connect(path, () => {
      socket.destroy();
      tell(true);
    });
    socket.on('error', (error) => tell(error.code !== 'ECONNREFUSED'));
  });
  if (!alive) await unlink(path);
}
