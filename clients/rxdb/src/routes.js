// The requests of CouchDB's protocol that Plainfold sends, each answered from a collection.
//
// It must not know how RxDB is queried.

import { badRequest, missing } from './refusal.js';

/** The longest body of a request that only reads. */
const MAX_QUESTION = 8 << 20;

/** The number of ids of a request whose documents are read at once. */
const SLICE = 100;

/** The number of bytes of an attachment that are sent at once. */
const PIECE = 256 << 10;

/** The time that a feed without `heartbeat` and `timeout` waits at its end, and the longest possible one. */
const PAUSE = 60_000;

/** The shortest heartbeat. */
const SHORTEST_PAUSE = 100;

/** `GET /`. */
export function welcome(answer, { uuid, version }) {
  answer.json({ couchdb: 'Welcome', version, uuid, vendor: { name: 'plainfold-rxdb', version } });
}

/** `GET /db/_changes`, and `POST` with `filter=_doc_ids`. */
export async function changes(collection, request, answer) {
  const withBodies = request.flag('include_docs');
  if (request.method === 'POST') return changesOf(collection, request, answer, withBodies);
  if (request.text('filter') !== undefined) throw badRequest('filters are not served');
  const feed = request.text('feed') ?? 'normal';
  if (feed !== 'normal' && feed !== 'continuous')
    throw badRequest(`feed=${feed.slice(0, 20)} is not served: ask for normal or continuous`);
  const place = await collection.place(request.text('since'));
  const limit = request.number('limit', Infinity);
  const follow = feed === 'continuous';
  const beats = request.text('heartbeat') !== undefined;
  const asked =
    beats && request.text('heartbeat') !== 'true' ? request.number('heartbeat') : request.number('timeout', PAUSE);
  const pause = Math.min(Math.max(asked, SHORTEST_PAUSE), PAUSE);
  let [last, count, open] = [undefined, 0, false];
  for await (const { documents, texts, seq } of collection.changes(place, { follow, pause, most: limit })) {
    if (!open) {
      answer.begin();
      if (!follow) await answer.write('{"results":[\n');
    } else if (documents.length === 0 && !beats) break;
    // A batch has one place, after its last row.
    const own = (index) => (index === documents.length - 1 ? seq : 'null');
    const rows = documents.map((document, index) => row(collection, document, own(index), withBodies && texts[index]));
    if (follow) await answer.write(rows.map((text) => `${text}\n`).join('') || '\n');
    else if (rows.length > 0) await answer.write((count > 0 ? ',\n' : '') + rows.join(',\n'));
    [last, count, open] = [seq, count + rows.length, true];
  }
  answer.end(follow ? `{"last_seq":${last},"pending":0}\n` : `\n],\n"last_seq":${last},"pending":0}\n`);
}

async function changesOf(collection, request, answer, withBodies) {
  const { doc_ids: ids } = await request.object(MAX_QUESTION);
  if (!areTexts(ids)) throw badRequest('doc_ids must be a list of ids');
  await list(answer, '{"results":[\n', slices(ids), async (slice) => {
    const found = [...(await collection.find(slice)).values()];
    return found.map((document) => row(collection, document, 'null', withBodies && collection.text(document)));
  });
  answer.end('\n],\n"last_seq":null,"pending":0}\n');
}

/** Sends the beginning of a list and its items, `itemsOf` each part in order. The caller ends the list. */
async function list(answer, head, parts, itemsOf) {
  let before = head;
  for (const part of parts) {
    const items = await itemsOf(part);
    if (items.length === 0) continue;
    if (!answer.begun) answer.begin();
    await answer.write(before + items.join(',\n'));
    before = ',\n';
  }
  if (answer.begun) return;
  answer.begin();
  await answer.write(head);
}

function slices(values) {
  const count = Math.ceil(values.length / SLICE);
  return Array.from({ length: count }, (_, index) => values.slice(index * SLICE, (index + 1) * SLICE));
}

function row(collection, document, seq, text) {
  const id = JSON.stringify(document[collection.primaryPath]);
  const deleted = document._deleted ? ',"deleted":true' : '';
  const doc = text ? `,"doc":${text}` : '';
  return `{"seq":${seq},"id":${id},"changes":[{"rev":${JSON.stringify(document._rev)}}]${deleted}${doc}}`;
}

/** `GET` and `POST /db/_all_docs`. */
export async function allDocs(collection, request, answer) {
  const withBodies = request.flag('include_docs');
  const head = '{"rows":[\n';
  if (request.method === 'POST') {
    const { keys } = await request.object(MAX_QUESTION);
    if (!areTexts(keys)) throw badRequest('keys must be a list of ids');
    await list(answer, head, slices(keys), async (slice) => {
      const found = await collection.find(slice);
      return slice.map((key) => {
        const document = found.get(key);
        return document ? listed(collection, document, withBodies) : JSON.stringify({ key, error: 'not_found' });
      });
    });
  } else {
    const documents = await collection.list(request.value('startkey'), request.number('limit', Infinity));
    await list(answer, head, documents, async (document) => [listed(collection, document, withBodies)]);
  }
  answer.end('\n]}\n');
}

function listed(collection, document, withBodies) {
  const id = JSON.stringify(document[collection.primaryPath]);
  const value = JSON.stringify({ rev: document._rev, ...(document._deleted && { deleted: true }) });
  const body = () => (document._deleted ? 'null' : collection.text(document));
  return `{"id":${id},"key":${id},"value":${value}${withBodies ? `,"doc":${body()}` : ''}}`;
}

/** `POST /db/_bulk_get`, one document at a time. */
export async function bulkGet(collection, request, answer) {
  const { docs } = await request.object(MAX_QUESTION);
  if (!Array.isArray(docs) || !areTexts(docs.map((one) => one?.id)))
    throw badRequest('docs must be a list of ids with revisions');
  answer.begin();
  await answer.write('{"results":[\n');
  for (const [index, { id, rev }] of docs.entries()) {
    const text = await one(collection, request, id, rev);
    const notFound = () => JSON.stringify({ error: { id, rev, error: 'not_found', reason: 'missing' } });
    const item = text === undefined ? notFound() : `{"ok":${text}}`;
    await answer.write(`${index > 0 ? ',\n' : ''}{"id":${JSON.stringify(id)},"docs":[${item}]}`);
  }
  answer.end('\n]}\n');
}

async function one(collection, request, id, rev) {
  const found = (await collection.find([id])).get(id);
  if (!found) return undefined;
  const isPresent = rev === undefined || found._rev === rev;
  if (request.flag('attachments')) {
    const stubs = isPresent ? found._attachments : await collection.attachments(id, rev);
    // An earlier revision no longer has a body.
    const document = isPresent ? found : stubs && { [collection.primaryPath]: id, _rev: rev, _attachments: stubs };
    return document && withAttachments(collection, id, document);
  }
  if (!isPresent) return undefined;
  const [start, hash] = [Number.parseInt(found._rev, 10), found._rev.slice(found._rev.indexOf('-') + 1)];
  const members = request.flag('revs') ? { _revisions: { start, ids: [hash] } } : undefined;
  return collection.text(found, { members });
}

async function withAttachments(collection, id, document) {
  const inline = new Map();
  for (const name of Object.keys(document._attachments ?? {})) {
    const found = await collection.attachment(id, document._rev, name);
    if (!found) return undefined;
    inline.set(name, Buffer.from(await found.blob.arrayBuffer()).toString('base64'));
  }
  return collection.text(document, { inline });
}

/** `GET /db/id/name`. */
export async function attachment(collection, request, answer, id, name) {
  const revision = request.text('rev') ?? (await collection.find([id])).get(id)?._rev;
  const found = revision && (await collection.attachment(id, revision, name));
  if (!found) throw missing(`document ${id} has no attachment ${name} at revision ${revision}`);
  const { blob, type } = found;
  // A type that an application recorded must not break the head of the answer.
  const contentType = /^[\x20-\x7e]+$/.test(type ?? '') ? type : 'application/octet-stream';
  answer.begin({ 'content-type': contentType, 'content-length': blob.size });
  // A blob's own stream returns in-memory data as one piece.
  for (let at = 0; at < blob.size; at += PIECE)
    await answer.write(Buffer.from(await blob.slice(at, at + PIECE).arrayBuffer()));
  answer.end();
}

/** `POST /db/_revs_diff`. */
export async function revsDiff(collection, request, answer) {
  const asked = Object.entries(await request.object(MAX_QUESTION));
  if (!asked.every(([, revisions]) => areTexts(revisions))) throw badRequest('the revisions of an id must be a list');
  const found = await collection.find(asked.map(([id]) => id));
  const unknown = asked.map(([id, revisions]) => [id, { missing: collection.unknown(found.get(id), revisions) }]);
  answer.json(Object.fromEntries(unknown.filter(([, { missing }]) => missing.length > 0)));
}

function areTexts(values) {
  return Array.isArray(values) && values.every((value) => typeof value === 'string');
}
