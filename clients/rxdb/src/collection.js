// One collection of RxDB as the feed tells it: documents as CouchDB's, in the order of the storage's own feed.
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

/** About how many bytes of documents are read from the storage at once. */
const BATCH_BYTES = 64 << 10;

/** The most documents that are read at once. */
const BATCH_DOCUMENTS = 500;

/** How many documents are read at once before anything is known of their size. */
const FIRST_BATCH = 8;

/** The longest name of a folder in a mirror, in bytes, whatever is escaped in it. */
const LONGEST_NAME = 200;

/**
 * A place is of use for so many milliseconds at least, whatever the cleanup does: it is handed back right after it was
 * told.
 */
const SHORTEST_TOMBSTONE = 60_000;

/** Of how many attachments it is remembered at which revision of their document a reader was told of them. */
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

  /** Ends all that waits for a write. */
  close() {
    this.#subscription.unsubscribe();
    this.#writes.wake();
  }

  /** Refuses while a migration leaves the collection half filled: what it lacks would pass for deleted. */
  ensureReadable() {
    const { closed, migrationInProgress, schema } = this.#collection;
    if (closed || this.closed) throw missing(`collection ${this.name} is closed`);
    if (migrationInProgress) {
      const reason = `the migration of ${this.name} to schema version ${schema.version} is pending or under way`;
      throw new Refusal(503, 'migration', reason, { 'retry-after': '1' });
    }
  }

  /** What CouchDB tells of a database. */
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

  /** The place that `since` names. */
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
   * The documents that were written after a place, batch by batch: `{ documents, texts, seq }`, where `seq` is the JSON
   * text of the place after the batch. Without `follow` it ends with what there is. With it, it waits for more, yields
   * a batch of no documents after every `pause` milliseconds without one, and ends with the collection. It ends after
   * `most` documents.
   */
  async *changes(place, { follow, pause, most }) {
    // From the beginning it is a full listing: what is written again meanwhile must be in it too, later.
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
      // Half a listing that looked whole would have everything else deleted.
      this.ensureReadable();
      if (atEnd) await this.#writes.after(writes, pause);
      // The application comes first.
      await new Promise(setImmediate);
    }
  }

  /** Documents by their ids, deleted ones too: a map. */
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
   * The text of a document: as RxDB's backup plugin writes it, byte for byte, but that its attachments have CouchDB's
   * members beside RxDB's own. `inline` gives the base64 of each attachment, `members` are added at the end.
   */
  text(document, { inline, members } = {}) {
    const names = Object.keys(document._attachments ?? {});
    const id = document[this.primaryPath];
    // A folder cannot be named as such an id is, so it has to be found in the body.
    if (encodeURIComponent(id.toWellFormed()).length > LONGEST_NAME) members = { _id: id, ...members };
    if (names.length === 0 && !members) return JSON.stringify(document);
    if (names.length > 0) this.#remember(document);
    const stubs = names.map((name) => [name, this.#stub(document._attachments[name], inline?.get(name))]);
    return JSON.stringify({ ...document, _attachments: Object.fromEntries(stubs), ...members });
  }

  /**
   * RxDB's stubs of the attachments of a document at a revision. RxDB forgets a revision with the next one, but what a
   * reader was told of it is remembered for a while: attachments that have stayed the same since are given. `undefined`
   * where nothing is known of the revision.
   */
  async attachments(id, revision) {
    const document = (await this.find([id])).get(id);
    if (!document || document._deleted) return undefined;
    if (document._rev === revision) return document._attachments;
    const told = this.#told.get(`${id}\n${revision}`);
    const same = ([name, { digest }]) => told.get(name) === digest;
    return told && Object.fromEntries(Object.entries(document._attachments).filter(same));
  }

  /** An attachment's bytes as a `Blob`; `undefined` where the document has none of that name, or not any more. */
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
    // Storages keep the newest bytes only, and not all look at the digest.
    return blob && (await there())?.digest === digest ? { blob, type } : undefined;
  }

  /**
   * Which of these revisions a document, if it is there, does not know. RxDB keeps no history, so a lower number counts
   * as an ancestor.
   */
  unknown(document, revisions) {
    const height = document ? getHeightOfRevision(document._rev) : 0;
    const known = (revision) => document?._rev === revision || height > Number.parseInt(revision, 10);
    return revisions.filter((revision) => !known(revision));
  }

  #changedSince(checkpoint, limit) {
    // RxDB's own empty checkpoint lies before the least time that its queries take.
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
    // Of what is encrypted or compressed, RxDB notes the length that it has in the storage.
    const known = data === undefined && !this.#transforms ? { length } : {};
    const content = data === undefined ? { stub: true } : { data };
    return { ...known, ...rest, content_type: own.type, digest, ...content };
  }

  /** For how many milliseconds RxDB's cleanup leaves a deleted document. */
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

  /** What tells this collection's data from every other's, and from those of an earlier collection of its name. */
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

  /**
   * Another process may write without an event here. Then the end is not where it was, and `update_seq` has to differ.
   */
  async #lookForUntold() {
    if (!this.#end) return;
    const { documents } = await this.#changedSince(this.#end.checkpoint, 1);
    if (documents.length > 0) this.#edition += 1;
  }

  /**
   * Notices where a cleanup removed deleted documents before their time (`collection.cleanup(0)`): the oldest deletion
   * that was seen is looked for. A cleanup takes the oldest first.
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
