// Restoring: writes documents with their revisions into a collection, through the bulk write of its storage.
//
// RxDB gives every write of an application a new revision. A restored document keeps its revision, so that it can be
// proven equal and a restore can be repeated; it counts as written now, so that replications pass it on.

import { now } from 'rxdb';
import { getValidator } from 'rxdb/plugins/validate-ajv';
import { Refusal, badRequest } from './refusal.js';

/** Compiled schemas, which are expensive. */
const validators = new WeakMap();

export class Restore {
  #collection;

  constructor(collection) {
    this.#collection = collection;
  }

  /** Writes the documents of a `_bulk_docs`. Returns those that were not written, with the reasons. */
  async write({ docs, new_edits: newEdits }) {
    if (newEdits !== false)
      throw badRequest('only new_edits=false is served: documents with the revisions that they have');
    if (!Array.isArray(docs)) throw badRequest('docs must be a list of documents');
    const { rx } = this.#collection;
    const unwritten = [];
    const refuse = ({ id, rev }, error, reason) => unwritten.push({ id, rev, error, reason });
    const arrivals = this.#arrivals(docs);
    const found = await this.#collection.find([...arrivals.keys()]);
    const rows = [];
    const written = new Map();
    for (const [id, arrival] of arrivals) {
      const previous = found.get(id);
      if (previous?._rev === arrival.rev && previous._deleted === arrival.deleted) continue;
      if (previous && !previous._deleted && !arrival.replaces.has(previous._rev)) {
        refuse(arrival, 'conflict', `the collection holds revision ${previous._rev}`);
        continue;
      }
      try {
        const document = await this.#document(arrival, previous);
        rows.push({ previous, document });
        written.set(id, arrival);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        refuse(arrival, error.error, error.message);
      }
    }
    if (rows.length === 0) return unwritten;
    this.#collection.ensureReadable();
    const lwt = now();
    for (const { document } of rows) document._meta = { lwt };
    const storage = rx.storageInstance.originalStorageInstance;
    const { error: errors } = await rx.database.lockedRun(() => storage.bulkWrite(rows, 'plainfold-restore'));
    for (const error of errors) refuse(written.get(error.documentId), ...why(error));
    return unwritten;
  }

  /**
   * The documents by id, each with the revisions that it may replace. Those are its parent, and the parents of
   * tombstones that come with it: in a database with branches, they would end the other branch.
   */
  #arrivals(docs) {
    const arrivals = new Map();
    for (const body of docs) {
      const { _id, _rev: rev, _deleted, _revisions } = body ?? {};
      const id = body?.[this.#collection.primaryPath] ?? _id;
      if (typeof id !== 'string' || (_id !== undefined && _id !== id))
        throw badRequest(`a document's id must be in ${this.#collection.primaryPath}, the collection's primary key`);
      if (!/^\d+-./.test(rev ?? '')) throw badRequest(`document ${id} has no revision`);
      const [, parent] = _revisions?.ids ?? [];
      const replaces = parent === undefined ? [] : [`${_revisions.start - 1}-${parent}`];
      const known = arrivals.get(id);
      if (known) replaces.forEach((revision) => known.replaces.add(revision));
      else arrivals.set(id, { id, rev, deleted: _deleted === true, body, replaces: new Set(replaces) });
    }
    return arrivals;
  }

  /** A document in RxDB's form, checked against the schema. */
  async #document({ id, rev, deleted, body }, previous) {
    const { primaryPath } = this.#collection;
    const { _id, _rev, _meta, _deleted, _revisions, _attachments, ...members } = body;
    const bare = Object.keys(members).length === 0;
    // A tombstone may come without the other members, which the schema may require.
    const rest = deleted && bare ? previous : members;
    const attachments = deleted ? {} : await this.#attachments(_attachments ?? {});
    const document = {
      ...rest,
      [primaryPath]: id,
      _deleted: deleted,
      _attachments: attachments,
      _meta: { lwt: 1 },
      _rev: rev,
    };
    this.#check(document);
    return document;
  }

  async #attachments(stubs) {
    const { database, schema } = this.#collection.rx;
    const names = Object.keys(stubs);
    if (names.length > 0 && !schema.jsonSchema.attachments) {
      throw new Refusal(422, 'schema', `the collection's schema allows no attachments, and ${names[0]} is one`);
    }
    const attachments = [];
    for (const name of names) {
      const { data, content_type: type = 'application/octet-stream' } = stubs[name] ?? {};
      if (typeof data !== 'string') throw badRequest(`attachment ${name} comes without its data`);
      const blob = new Blob([Buffer.from(data, 'base64')], { type });
      attachments.push([name, { length: blob.size, type, digest: await database.hashFunction(blob), data: blob }]);
    }
    return Object.fromEntries(attachments);
  }

  #check(document) {
    const { database, name, schema } = this.#collection.rx;
    // Then the bulk write checks.
    if (database.storage.name.startsWith('validate-')) return;
    if (!validators.has(schema)) {
      try {
        validators.set(schema, getValidator(schema.jsonSchema));
      } catch (error) {
        throw new Refusal(
          500,
          'schema',
          `RxDB's ajv plugin cannot read the schema of ${name}, so give its storage a validator: ${error.message}`,
        );
      }
    }
    const errors = validators.get(schema)(document);
    if (errors.length > 0) throw new Refusal(422, 'schema', said(errors));
  }
}

function why({ status, documentInDb, validationErrors, attachmentId }) {
  if (status === 409) return ['conflict', `the collection holds revision ${documentInDb._rev}, written meanwhile`];
  if (status === 422) return ['schema', said(validationErrors)];
  if (status === 510) return ['attachment', `attachment ${attachmentId} has no data`];
  return ['storage_error', `the storage refuses it with ${status}`];
}

/** The errors of a validator, without the values. */
function said(errors) {
  const one = ({ instancePath, field, message, params }) => {
    const extra = params?.additionalProperty ? ` (${params.additionalProperty})` : '';
    return `${instancePath || field || 'the document'} ${message}${extra}`;
  };
  return `it does not fit the collection's schema: ${errors.slice(0, 3).map(one).join('; ')}`;
}
