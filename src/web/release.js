// Releasing deletions that are held back: asks first, and names how many deletions of which collection.

import { ask, order, path } from './api.js';
import { h } from './dom.js';
import { confirmed, notice } from './view.js';
import { count, line } from './words.js';

/** Asks, releases, and says what came of it. */
export async function askToRelease(mirror, collection, after) {
  try {
    // The number may have changed since it was shown.
    const { held_back: held } = await ask(path(mirror, 'collections', collection));
    if (held === 0) return void notice(`No deletions of ${line(collection)} are held back any more.`);
    const many = count(held, 'document');
    const sure = await confirmed({
      title: `Delete ${many} of ${line(collection)}?`,
      text: [
        h('p', null, 'The source no longer has ', h('strong', null, many), ' of the collection ', h('strong', null, line(collection)),
          ' of the mirror ', h('strong', null, mirror), '. If you release them, they are deleted from the mirror as well.'),
        h('p', null, 'If the source lost them by mistake, press “Cancel”, and restore them from the mirror into the source.'),
      ],
      confirm: `Delete ${many}`,
    });
    if (!sure) return void notice('Nothing was released.', 'idle');
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
