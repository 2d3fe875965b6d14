// Releasing deletions that are held back: asks first, and names how many deletions of which collection.

import { ask, order, path } from './api.js';
import { h } from './dom.js';
import { confirmed, notice } from './view.js';
import { count, line, number } from './words.js';

/** How many deletions are held back now. */
const heldBack = async (mirror, collection) => (await ask(path(mirror, 'collections', collection))).held_back;

/** What is asked. `before` is the number of documents to which the reader has agreed already. */
function question(mirror, collection, held, before) {
  const many = count(held, 'document');
  const more = h('p', { class: 'trouble', 'data-level': 'warn' }, `The source deleted more documents while you were asked: ${number(held)} deletions are held back now, not ${number(before)}. Nothing is released yet.`);
  return {
    title: `Delete ${many} of ${line(collection)}?`,
    text: [
      before > 0 ? more : null,
      h('p', null, 'The source no longer has ', h('strong', null, many), ' of the collection ', h('strong', null, line(collection)),
        ' of the mirror ', h('strong', null, mirror), '. If you release them, they are deleted from the mirror as well.'),
      h('p', null, 'If the source lost them by mistake, press “Cancel”, and restore them from the mirror into the source.'),
    ],
    confirm: `Delete ${many}`,
  };
}

/** Asks, releases, and says what came of it. */
export async function askToRelease(mirror, collection, after) {
  try {
    // The number may have changed since it was shown, and may grow while the dialog is open.
    let [agreed, held] = [0, await heldBack(mirror, collection)];
    while (held > agreed) {
      if (!await confirmed(question(mirror, collection, held, agreed))) return void notice('Nothing was released.', 'idle');
      [agreed, held] = [held, await heldBack(mirror, collection)];
    }
    if (held === 0) return void notice(`No deletions of ${line(collection)} are held back any more.`);
    const done = await order(path(mirror, 'collections', collection, 'release'));
    const applied = count(done.held_back - done.left, 'deletion');
    notice(done.left > 0
      ? `Released ${count(done.held_back, 'deletion')} of ${line(collection)}. The mirror still applies ${count(done.left, 'deletion')}.`
      : `Applied ${applied} of ${line(collection)}.`);
  } catch (error) {
    notice(`Release: ${line(error.message)}`, 'bad');
  }
  after?.();
}
