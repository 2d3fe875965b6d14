// The writes to a collection that this process has seen: their number, and the times that they carry.
//
// RxDB orders its feed by the time that a write carries (`_meta.lwt`), and takes that time before it writes. Of two
// concurrent writes, the one with the earlier time may become visible later, when the feed has passed its place. An
// event announces every write when it is visible, so a reader learns here where it has to go back to.

import { randomBytes } from 'node:crypto';

/** The number of the last writes that are remembered one by one. */
const REMEMBERED = 4096;

/**
 * How far to go back if nothing is remembered: longer than a storage takes to write, or two machines' clocks differ.
 */
export const OVERLAP = 10_000;

export class Writes {
  /** Distinguishes this process' count from any other's. */
  process = randomBytes(6).toString('base64url');
  count = 0;
  #times = [];
  #waiting = new Set();

  /** An event of RxDB: documents that were written together. */
  take({ events }) {
    let earliest = Infinity;
    for (const { documentData } of events) earliest = Math.min(earliest, documentData?._meta?.lwt ?? Infinity);
    this.count += 1;
    this.#times.push(earliest);
    if (this.#times.length > 2 * REMEMBERED) this.#times.splice(0, REMEMBERED);
    this.wake();
  }

  /**
   * The checkpoint to continue from: the place's own, or an earlier one if a write may have become visible behind it.
   */
  resume({ checkpoint, at, process, writes }) {
    // Some storages have checkpoints of another kind, and order their feeds correctly.
    if (typeof checkpoint?.lwt !== 'number') return checkpoint;
    const since = this.count - writes;
    const remembered = process === this.process && since <= this.#times.length;
    const earliest = remembered ? Math.min(...this.#times.slice(this.#times.length - since)) : at - OVERLAP;
    return earliest <= checkpoint.lwt ? { ...checkpoint, id: '', lwt: earliest } : checkpoint;
  }

  /** Resolves at the next write after the first `count`, when `wake` is called, or after this many milliseconds. */
  after(count, milliseconds) {
    if (this.count !== count) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#waiting.delete(done);
        resolve();
      };
      const timer = setTimeout(done, milliseconds);
      this.#waiting.add(done);
    });
  }

  wake() {
    for (const done of this.#waiting) done();
  }
}
