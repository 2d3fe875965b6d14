// Places in a collection's feed as texts: a client stores them as `seq` and returns them as `since`.
//
// A place is RxDB's own checkpoint, whatever a storage puts into it, with data that shows whether the place is still
// valid: its data set, and when and by which process it was sent. Nobody else looks inside.

/**
 * @typedef {object} Place
 * @property {any} checkpoint of the storage
 * @property {number} at when it was told, in milliseconds since 1970
 * @property {string} process which process told it
 * @property {number} writes how many writes that process had seen before it read
 */

/** The text of a place in the data set `origin`. */
export function toSeq(origin, { checkpoint, at, process, writes }) {
  const text = JSON.stringify([checkpoint, at, process, writes]);
  return `${origin}.${Buffer.from(text).toString('base64url')}`;
}

/** Parses a place; `undefined` if it does not belong to this data set. */
export function fromSeq(origin, seq) {
  const [of, text, ...more] = seq.split('.');
  if (of !== origin || !text || more.length > 0) return undefined;
  try {
    const [checkpoint, at, process, writes] = JSON.parse(Buffer.from(text, 'base64url').toString());
    const known = checkpoint !== null && typeof checkpoint === 'object' && Number.isFinite(at);
    return known ? { checkpoint, at, process, writes } : undefined;
  } catch {
    return undefined;
  }
}
