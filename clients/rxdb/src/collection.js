// One collection of RxDB in the form of the feed: documents in CouchDB's form, in the order of the storage's own feed.
//
// It must not know HTTP, nor write anything.

import { createHash } from 'node:crypto';
import {
  RX_META_LWT_MINIMUM,
  getChangedDocumentsSince,
  getHeightOfRevision,
  getPrimaryKeyOfInternalDocument,
  getSingleDocument,
  normalizeMangoQuery,
  now,
  prepareQuery,
} from 'rxdb';
import { DEFAULT_CLEANUP_POLICY } from 'rxdb/plugins/cleanup';
import { fromSeq, toSeq } from './position.js';
import { Refusal, badRequest, missing } from './refusal.js';
import { Writes } from './writes.js';

/** Roughly the number of bytes of documents that are read from the storage at once. */
const BATCH_BYTES = 64 << 10;

/** The most documents that are read at once. */
const BATCH_DOCUMENTS = 500;

/** The number of documents that are read at once before their size is known. */
const FIRST_BATCH = 8;

/** The longest name of a folder in a mirror, in bytes, including escapes. */
const LONGEST_NAME = 200;

/**
 * The minimum number of milliseconds for which a place is valid, whatever the cleanup does: it is returned right after
 * it was sent.
 */
const SHORTEST_TOMBSTONE = 60_000;

/** The number of attachments for which the revision that a reader has received is remembered. */
const TOLD = 10_000;

/** The most rows of a listing by id. */
const PAGE = 500;

export class Collection {
  #collection;
  #writes = new Writes();
  #subscription;
  #origin;
  #hashesSha256;
  #end;
  #edition = 0;
  #deletion;
  #told = new Map();
  #toldCount = 0;
  #purges = 0;

  constructor(collection) {
    this.#collection = collection;
    this.#subscription = collection.eventBulks$.subscribe((bulk) => {
      if (bulk.isLocal) return;
      this.#writes.take(bulk);
      this.#deletion ??= bulk.events.find((event) => event.operation === 'DELETE')?.documentData;
    });
    collection.onClose.push(() => this.close());
  }

  get name() {
    return this.#collection.name;
  }

  get rx() {
    return this.#collection;
  }

  get primaryPath() {
    return this.#collection.schema.primaryPath;
  }

  get closed() {
    return this.#subscription.closed;
  }

  /** Ends every wait for a write. */
  close() {
    this.#subscription.unsubscribe();
    this.#writes.wake();
  }

  /** Refuses while a migration leaves the collection half filled: missing documents would count as deleted. */
  ensureReadable() {
    const { closed, migrationInProgress, schema } = this.#collection;
    if (closed || this.closed) throw missing(`collection ${this.name} is closed`);
    if (migrationInProgress) {
      const reason = `the migration of ${this.name} to schema version ${schema.version} is pending or under way`;
      throw new Refusal(503, 'migration', reason, { 'retry-after': '1' });
    }
  }

  /** CouchDB's information about a database. */
  async info() {
    const origin = await this.#dataSet();
    const [live, deleted] = [await this.#count(false), await this.#count(true)];
    await this.#lookForUntold();
    await this.#lookForPurge();
    return {
      db_name: this.name,
      doc_count: live,
      doc_del_count: deleted,
      update_seq: `${this.#writes.process}.${this.#writes.count}.${this.#edition}`,
      purge_seq: String(this.#purges),
      instance_start_time: origin,
    };
  }

  /** The place of `since`. */
  async place(since) {
    const beginning = {
      checkpoint: undefined,
      at: Date.now(),
      process: this.#writes.process,
      writes: this.#writes.count,
    };
    if (since === undefined || since === '0' || since === '') return beginning;
    if (since === 'now') return { ...beginning, checkpoint: { id: '', lwt: now() } };
    const place = fromSeq(await this.#dataSet(), since);
    if (!place) throw badRequest("Malformed sequence supplied in 'since' parameter: it is of another data set");
    if (Date.now() - place.at > this.#tombstonesLast) {
      const reason = 'it is so old that deletions after it may have been cleaned up';
      throw badRequest(`Malformed sequence supplied in 'since' parameter: ${reason}`);
    }
    return place;
  }

  /**
   * The documents that were written after a place, batch by batch: `{ documents, texts, seq }`, where `seq` is the
   * JSON text of the place after the batch. Without `follow` it ends at the present end. With it, it waits for more,
   * yields an empty batch after every `pause` milliseconds without one, and ends with the collection. It ends after
   * `most` documents.
   */
  async *changes(place, { follow, pause, most }) {
    // From the beginning it is a full listing: documents that are written again meanwhile must be in it too, later.
    const until = place.checkpoint === undefined ? Infinity : now();
    const origin = await this.#dataSet();
    let [size, left] = [FIRST_BATCH, most];
    for (;;) {
      const limit = Math.min(size, left);
      const { count: writes, process } = this.#writes;
      const at = Date.now();
      const { documents, checkpoint } = await this.#changedSince(this.#writes.resume(place), limit);
      place = { checkpoint, at, process, writes };
      const texts = documents.map((document) => this.text(document));
      const seq = JSON.stringify(toSeq(origin, place));
      const atEnd = documents.length < limit;
      if (atEnd) this.#end = place;
      yield { documents, texts, seq };
      left -= documents.length;
      if (left <= 0 || (follow && this.closed)) return;
      if (documents.length > 0) {
        const bytes = texts.reduce((sum, text) => sum + text.length, 0);
        size = Math.min(BATCH_DOCUMENTS, Math.max(1, Math.floor((documents.length * BATCH_BYTES) / bytes)));
      }
      if (!follow && (atEnd || documents.at(-1)._meta.lwt > until)) return;
      // Half a listing that looked complete would cause everything else to be deleted.
      this.ensureReadable();
      if (atEnd) await this.#writes.after(writes, pause);
      // The application comes first.
      await new Promise(setImmediate);
    }
  }

  /** Documents by their ids, including deleted ones: a map. */
  async find(ids) {
    const documents = await this.#collection.storageInstance.findDocumentsById(ids, true);
    return new Map(documents.map((document) => [document[this.primaryPath], document]));
  }

  /** Live documents in the order of their ids, from this one on. */
  async list(from, limit) {
    const { schema } = this.#collection.storageInstance;
    const selector = { _deleted: { $eq: false } };
    if (from !== undefined) selector[this.primaryPath] = { $gte: from };
    const sort = [{ [this.primaryPath]: 'asc' }];
    const query = normalizeMangoQuery(schema, { selector, sort, skip: 0, limit: Math.min(limit, PAGE) });
    const { documents } = await this.#collection.storageInstance.query(prepareQuery(schema, query));
    return documents;
  }

  /**
   * The text of a document: as RxDB's backup plugin writes it, byte for byte, except that its attachments have
   * CouchDB's members in addition to RxDB's. `inline` returns the base64 of each attachment, `members` are added at
   * the end.
   */
  text(document, { inline, members } = {}) {
    const names = Object.keys(document._attachments ?? {});
    const id = document[this.primaryPath];
    // No folder can have such an id as its name, so the id must be in the body.
    if (encodeURIComponent(id.toWellFormed()).length > LONGEST_NAME) members = { _id: id, ...members };
    if (names.length === 0 && !members) return JSON.stringify(document);
    if (names.length > 0) this.#remember(document);
    const stubs = names.map((name) => [name, this.#stub(document._attachments[name], inline?.get(name))]);
    return JSON.stringify({ ...document, _attachments: Object.fromEntries(stubs), ...members });
  }

  /**
   * RxDB's stubs of the attachments of a document at a revision. RxDB forgets a revision with the next one, but a
   * revision that a reader has received is remembered for a while: attachments that have not changed since are
   * returned. `undefined` if nothing is known about the revision.
   */
  async attachments(id, revision) {
    const document = (await this.find([id])).get(id);
    if (!document || document._deleted) return undefined;
    if (document._rev === revision) return document._attachments;
    const told = this.#told.get(`${id}\n${revision}`);
    const same = ([name, { digest }]) => told.get(name) === digest;
    return told && Object.fromEntries(Object.entries(document._attachments).filter(same));
  }

  /** An attachment's bytes as a `Blob`; `undefined` if the document does not have it, or no longer has it. */
  async attachment(id, revision, name) {
    const there = async () => (await this.attachments(id, revision))?.[name];
    const { digest, type } = (await there()) ?? {};
    if (!digest) return undefined;
    let blob;
    try {
      blob = await this.#collection.storageInstance.getAttachmentData(id, name, digest);
    } catch (error) {
      if ((await there())?.digest === digest) throw error;
    }
    // Storages keep the newest bytes only, and not all check the digest.
    return blob && (await there())?.digest === digest ? { blob, type } : undefined;
  }

  /**
   * The revisions among these that a document does not know. RxDB keeps no history, so a lower number counts as an
   * ancestor.
   */
  unknown(document, revisions) {
    const height = document ? getHeightOfRevision(document._rev) : 0;
    const known = (revision) => document?._rev === revision || height > Number.parseInt(revision, 10);
    return revisions.filter((revision) => !known(revision));
  }

  #changedSince(checkpoint, limit) {
    // RxDB's own empty checkpoint is earlier than the least time that its queries accept.
    const begin = checkpoint?.lwt < RX_META_LWT_MINIMUM ? undefined : checkpoint;
    return getChangedDocumentsSince(this.#collection.storageInstance, limit, begin);
  }

  #remember(document) {
    const key = `${document[this.primaryPath]}\n${document._rev}`;
    this.#forget(key);
    const digests = new Map(Object.entries(document._attachments).map(([name, { digest }]) => [name, digest]));
    this.#told.set(key, digests);
    this.#toldCount += digests.size;
    while (this.#toldCount > TOLD) this.#forget(this.#told.keys().next().value);
  }

  #forget(key) {
    this.#toldCount -= this.#told.get(key)?.size ?? 0;
    this.#told.delete(key);
  }

  #stub(own, data) {
    const { length, ...rest } = own;
    const digest = this.#hashesSha256 ? `sha256-${own.digest}` : own.digest;
    // For encrypted or compressed data, RxDB records the length in the storage.
    const known = data === undefined && !this.#transforms ? { length } : {};
    const content = data === undefined ? { stub: true } : { data };
    return { ...known, ...rest, content_type: own.type, digest, ...content };
  }

  /** The number of milliseconds for which RxDB's cleanup keeps a deleted document. */
  get #tombstonesLast() {
    const { minimumDeletedTime } = { ...DEFAULT_CLEANUP_POLICY, ...this.#collection.database.cleanupPolicy };
    return Math.max(minimumDeletedTime, SHORTEST_TOMBSTONE);
  }

  get #transforms() {
    const { encrypted, compression } = this.#collection.schema.jsonSchema.attachments ?? {};
    return Boolean(encrypted || compression);
  }

  async #count(deleted) {
    const { schema } = this.#collection.storageInstance;
    const query = normalizeMangoQuery(schema, { selector: { _deleted: { $eq: deleted } }, skip: 0 });
    return (await this.#collection.storageInstance.count(prepareQuery(schema, query))).count;
  }

  /** The identity of this collection's data, which differs from that of an earlier collection with its name. */
  #dataSet() {
    this.#origin ??= this.#findOrigin().catch((error) => {
      this.#origin = undefined;
      throw error;
    });
    return this.#origin;
  }

  async #findOrigin() {
    const { database, name, schema } = this.#collection;
    const probe = 'plainfold';
    const sha256 = createHash('sha256').update(probe).digest('hex');
    this.#hashesSha256 = (await database.hashFunction(probe)) === sha256;
    const key = getPrimaryKeyOfInternalDocument(`${name}-${schema.version}`, 'collection');
    const registered = await getSingleDocument(database.internalStore, key);
    return `${await database.storageToken}-${schema.version}-${Math.round((registered?._meta.lwt ?? 0) * 100)}`;
  }

  /** Another process may write without an event here. Then the end has moved, and `update_seq` has to differ. */
  async #lookForUntold() {
    if (!this.#end) return;
    const { documents } = await this.#changedSince(this.#end.checkpoint, 1);
    if (documents.length > 0) this.#edition += 1;
  }

  /**
   * Detects whether a cleanup removed deleted documents early (`collection.cleanup(0)`): it looks for the oldest known
   * deletion, because a cleanup removes the oldest first.
   */
  async #lookForPurge() {
    const deletion = this.#deletion;
    if (!deletion) return;
    const isOld = Date.now() - deletion._meta.lwt > this.#tombstonesLast;
    const found = (await this.find([deletion[this.primaryPath]])).get(deletion[this.primaryPath]);
    if (!found && !isOld) this.#purges = now();
    if (!found?._deleted || isOld) this.#deletion = undefined;
  }
}
