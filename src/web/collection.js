// The view of one collection: its state, orders, failures and held-back deletions.

import { ask, path, query } from './api.js';
import { fill, h } from './dom.js';
import { factList } from './mirror.js';
import { askToRelease } from './release.js';
import { again, effects, link, orderButton, table, trail, trouble } from './view.js';
import { bytes, count, duration, judgeCollection, line, mark, number, problemList, prose, refreshTimes, time } from './words.js';

function facts(one) {
  const behind = one.behind ? Object.entries(one.behind).map(([unit, value]) => `${number(value)} ${unit}`).join(', ') : null;
  const ago = (seconds) => (seconds === null || seconds === undefined ? 'not known' : `${duration(seconds)} ago`);
  return [
    ['Lag', one.lag_seconds === null ? 'not known' : duration(one.lag_seconds)],
    behind ? ['Behind the source', behind] : null,
    ['Source heard', ago(one.heard_seconds)],
    ['Last commit', ago(one.committed_seconds)],
    one.changed_at ? ['Last change', time(one.changed_at)] : null,
    one.retry_at ? ['Next try', time(one.retry_at)] : null,
    ['Written in this run', `${count(one.documents, 'document')}, ${count(one.attachments, 'attachment')}, ${bytes(one.bytes)}`],
    ['Deleted in this run', number(one.deletions)],
    ['Verified', one.verified_at ? time(one.verified_at) : 'not yet'],
    one.in_flight > 0 ? ['In flight', number(one.in_flight)] : null,
    one.keeps ? ['Keeps', [one.keeps.attachments ? 'attachments' : null, one.keeps.revisions ? 'revisions' : null, one.keeps.deleted ? 'tombstones' : null].filter(Boolean).join(', ') || 'bodies only'] : null,
  ].filter(Boolean);
}

/** How a page is asked for: `where(after)` is the request, `items(answer)` its entries. */
const pages = (where, items) => async (after, signal) => {
  const answer = await ask(where(after), { signal });
  return { found: items(answer), next: answer.next };
};

/**
 * A list that the agent has in pages: shows one page, and asks for the next one when told to. `read(after)`
 * gives `{ found, next, note }`.
 */
export function paged(place, read, drawn, empty) {
  const stack = [null];
  const load = async (signal) => {
    const { found, next, note } = await read(stack.at(-1), signal);
    const key = `${stack.length} ${next} ${note} ${JSON.stringify(found)}`;
    const move = (change) => async () => {
      change();
      try {
        await load(signal);
      } catch (error) {
        place.append(trouble(error));
      }
      // The same button keeps the focus, unless there is no further page.
      if (!place.contains(document.activeElement)) (place.querySelector('.pager button:not(:disabled)') ?? place).focus();
    };
    fill(place, key, () => [
      note ? h('p', { class: 'note' }, note) : null,
      found.length > 0 ? drawn(found) : next ? null : h('p', { class: 'note' }, empty),
      stack.length > 1 || next ? h('div', { class: 'pager' },
        h('button', { type: 'button', disabled: stack.length === 1, onclick: move(() => stack.pop()) }, 'Previous page'),
        h('span', { class: 'note' }, `page ${stack.length}`),
        h('button', { type: 'button', disabled: !next, onclick: move(() => stack.push(next)) }, 'Next page')) : null,
    ]);
  };
  return load;
}

const cell = (label, className, ...content) => h('td', { role: 'cell', 'data-label': label, class: className }, content);

function failuresTable(mirror, collection) {
  return (found) => table('Documents that could not be mirrored', [['Document'], ['Reason'], ['Attempts', 'figure'], ['Since'], ['Last attempt']],
    h('tbody', { role: 'rowgroup' }, found.map((one) => h('tr', { role: 'row' },
      h('th', { scope: 'row', role: 'rowheader' }, one.documentId === null ? h('span', { class: 'note' }, `no id: ${line(one.place)}`)
        : h('a', { href: link('m', mirror, 'd', collection, one.documentId) }, h('bdi', null, line(one.documentId)))),
      cell('Reason', 'words', ...prose(line(one.reason))),
      cell('Attempts', 'figure', number(one.attempts)),
      cell('Since', null, time(one.since)),
      cell('Last attempt', null, time(one.at))))), 'stacks');
}

function heldTable(mirror, collection) {
  return (found) => table('Documents whose deletion is held back', [['Document'], ['Held back since']],
    h('tbody', { role: 'rowgroup' }, found.map((one) => h('tr', { role: 'row' },
      h('th', { scope: 'row', role: 'rowheader' }, h('a', { href: link('m', mirror, 'd', collection, one.document) }, h('bdi', null, line(one.document)))),
      cell('Held back since', null, time(one.since))))), 'stacks');
}

/** Shows the view in `main` until `signal` is aborted. */
export function collectionView(main, { signal, parts: [mirror, , collection] }) {
  const state = mark();
  const [error, wrong, about] = [h('div'), h('div'), h('div')];
  const orders = h('div', { class: 'buttons' });
  const [failed, held] = [h('div', { tabindex: '-1' }), h('div', { tabindex: '-1' })];
  const below = (what) => path(mirror, 'collections', collection, what);
  const failures = paged(failed, pages((after) => below('failures') + query({ after, limit: 50 }), (page) => page.failures),
    failuresTable(mirror, collection), 'All documents could be mirrored.');
  const deletions = paged(held, pages((after) => below('held') + query({ after, limit: 50 }), (page) => page.held),
    heldTable(mirror, collection), 'No deletions are held back.');
  main.append(
    trail(['Overview', '#/'], [mirror, link('m', mirror)], [line(collection)]),
    h('div', { class: 'bar' }, h('h1', { tabindex: '-1' }, h('bdi', null, line(collection))), state.element,
      h('a', { class: 'end', href: link('m', mirror, 'd', collection) }, 'Documents')),
    error, wrong, orders,
    h('section', { class: 'panel', 'aria-label': 'Facts' }, about),
    h('section', { 'aria-labelledby': 'failures' }, h('h2', { id: 'failures' }, 'Documents that could not be mirrored'), failed),
    h('section', { 'aria-labelledby': 'held' }, h('h2', { id: 'held' }, 'Deletions held back'), held));

  const refresh = again(signal, 3000, async () => {
    const one = await ask(path(mirror, 'collections', collection), { signal });
    const now = judgeCollection(one);
    state.update(now.level, now.word);
    fill(wrong, JSON.stringify(now.problems), () => now.problems.length > 0 ? [h('div', { class: 'panel', 'data-level': now.level }, problemList(now.problems))] : []);
    fill(about, JSON.stringify(one), () => [factList(facts(one))]);
    const give = (label, action) => orderButton(label, below(action), effects(label), refresh);
    fill(orders, `${one.phase === 'paused'} ${one.held_back > 0}`, () => [
      one.phase === 'paused' ? give('Resume', 'resume') : give('Pause', 'pause'),
      give('Catch up now', 'catch-up'),
      give('Full scan', 'rescan'),
      one.held_back > 0 ? h('button', { type: 'button', class: 'danger', onclick: () => askToRelease(mirror, collection, refresh) }, 'Release the deletions…') : null,
    ]);
    await Promise.all([failures(signal), deletions(signal)]);
    fill(error, '', () => []);
    refreshTimes(main);
  }, (wrongly) => fill(error, wrongly.message, () => [trouble(wrongly)]));
  return refresh;
}
