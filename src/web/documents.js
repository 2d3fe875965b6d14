// The view of a collection's documents: pages in the agent's order, and a search by id.

import { ask, path, query } from './api.js';
import { paged } from './collection.js';
import { field, fill, h } from './dom.js';
import { again, link, table, trail, trouble } from './view.js';
import { count, line } from './words.js';

const HOW = [
  ['prefix', 'begins with'],
  ['contains', 'contains'],
  ['is', 'is exactly'],
];

/** The documents of a page. */
const PAGE = 100;

/** The time, in milliseconds, after which a search shows what it has found. */
const PATIENCE = 4000;

/** The next documents after one. The agent answers with what a few thousand folders hold, which may be little. */
async function searched(where, asked, after, signal) {
  const [begun, found] = [Date.now(), []];
  let [next, unreadable, isComplete] = [after, 0, true];
  do {
    const page = await ask(where + query({ ...asked, after: next, limit: PAGE - found.length }), { signal });
    found.push(...page.documents);
    next = page.next;
    unreadable += page.unreadable;
    isComplete = page.complete;
  } while (next !== null && found.length < PAGE && Date.now() - begun < PATIENCE);
  const notes = [
    unreadable > 0 ? `${count(unreadable, 'folder')} could not be read and ${unreadable === 1 ? 'is' : 'are'} left out. Run “plainfold verify”: it names them.` : null,
    isComplete ? null : 'The list ends here, because too many folders cannot be read.',
    next !== null && found.length < PAGE ? 'The search is not at its end: the next page continues it.' : null,
  ];
  return { found, next, note: notes.filter(Boolean).join(' ') };
}

/** Shows the view in `main` until `signal` is aborted. */
export function documentsView(main, { signal, parts: [mirror, , collection], parameters, go }) {
  const found = h('div', { tabindex: '-1' });
  const error = h('div');
  const text = parameters.get('id') ?? '';
  const how = parameters.get('how') ?? 'prefix';
  const idField = field('Id', { type: 'search', value: text, autocomplete: 'off', spellcheck: 'false', autocapitalize: 'none' });
  const howField = field('How', null, 'select', HOW.map(([value, label]) => h('option', { value, selected: value === how }, label)));
  const input = idField.lastChild;
  const form = h('form', { class: 'row', role: 'search', 'aria-label': 'Documents by id', onsubmit: (event) => {
    event.preventDefault();
    const [id, chosen] = [input.value, howField.lastChild.value];
    if (chosen === 'is' && id) go(link('m', mirror, 'd', collection, id), {}, true);
    else go(link('m', mirror, 'd', collection), { id, how: id ? chosen : '' }, true);
  } }, howField, idField, h('button', { type: 'submit' }, 'Search'));
  const asked = how === 'is' ? {} : { [how]: text };
  const load = paged(found, (after, until) => searched(path(mirror, 'collections', collection, 'documents'), asked, after, until),
    (documents) => table('Documents', [['Id'], ['Folder in the mirror']], h('tbody', { role: 'rowgroup' }, documents.map((one) =>
      h('tr', { role: 'row' },
        h('th', { scope: 'row', role: 'rowheader' }, h('a', { href: link('m', mirror, 'd', collection, one.id) }, h('bdi', null, line(one.id)))),
        h('td', { role: 'cell', class: 'path', 'data-label': 'Folder' }, h('bdi', null, line(one.path)))))), 'documents stacks'),
    text ? 'No document has such an id.' : 'The collection has no documents.');
  main.append(
    trail(['Overview', '#/'], [mirror, link('m', mirror)], [line(collection), link('m', mirror, 'c', collection)], ['Documents']),
    h('div', { class: 'bar' }, h('h1', { tabindex: '-1' }, 'Documents of ', h('bdi', null, line(collection)))),
    form, error, found);
  // The list stays as it is while somebody reads it.
  return again(signal, 3_600_000, async () => {
    await load(signal);
    fill(error, '', () => []);
  }, (failed) => fill(error, failed.message, () => [trouble(failed)]));
}

/** The document with an id, or a message that there is no such one. */
export const documentAt = (mirror, collection, id, signal) => ask(path(mirror, 'collections', collection, 'documents', id), { signal });
