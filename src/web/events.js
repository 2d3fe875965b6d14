// The view of live write events: the newest ones, for one mirror or all, with a button that holds the list.

import { field, fill, h, keyed, setAttribute, setText } from './dom.js';
import { events } from './stream.js';
import { link } from './view.js';
import { clock, count, duration, line, mark, number } from './words.js';

/** The lines that are shown. */
const SHOWN = 100;

const STATES = {
  connecting: ['busy', () => 'Connecting to the agent.'],
  connected: ['well', ({ detail, at }) => detail || `Connected since ${clock(at)}.`],
  away: ['warn', ({ detail }) => `${line(detail)} The page connects again by itself${events.place ? `, and resumes ${line(events.place)}` : ''}.`],
  unsupported: ['idle', ({ detail }) => line(detail)],
};

/** A range of events, or a single one. */
const range = ({ first, last }) => (first === last ? `event ${number(first)}` : `the events ${number(first)} to ${number(last)}`);

/** Each notice in plain words: its level, and what it says. */
const NOTICES = {
  lagged: ['warn', ({ lagged }, of) => `The page reads too slowly. It missed ${count(lagged, 'event')}${of}, which ${lagged === 1 ? 'follows' : 'follow'} now from the journal.`],
  expired: ['warn', ({ expired }, of) => `The journal no longer holds ${range(expired)}${of}. This list lacks ${expired.first === expired.last ? 'it' : 'them'}; the documents in the mirror are not affected.`],
  passed: ['idle', ({ passed }, of) => `Up to event ${number(passed)}${of}, there are no more events for this page.`],
  replaced: ['idle', ({ mirror }) => `Another mirror has the name ${line(mirror)} now. Its events are shown from the oldest one in its journal.`],
};

/** A notice as `[level, text]`. An agent of a later version may have notices that are not in the table. */
function noticeWords({ name, of, said }) {
  try {
    const [level, words] = NOTICES[name];
    return [level, words(said, of ? ` of ${line(of)}` : '')];
  } catch {
    return ['warn', `The agent reports something that this page does not know: ${line(name ?? 'a notice without a name')}. Reload the page.`];
  }
}

function noticeItem(notice) {
  const [level, text] = noticeWords(notice);
  return h('li', { 'data-level': level }, h('span', { class: 'note' }, clock(notice.at)), h('span', { class: 'what' }, text));
}

function row(event) {
  const name = event.collectionName;
  const element = h('tr', { role: 'row', 'data-level': event.deleted ? 'warn' : 'well' },
    h('td', { role: 'cell', class: 'when' }, h('time', { datetime: event.at, title: event.at }, clock(new Date(event.at)))),
    h('td', { role: 'cell' }, event.deleted ? 'deleted' : 'written'),
    h('td', { role: 'cell' }, event.mirror ? h('a', { href: link('m', event.mirror) }, line(event.mirror)) : ''),
    h('td', { role: 'cell' }, h('a', { href: link('m', event.mirror ?? '', 'c', name) }, h('bdi', null, line(name)))),
    h('td', { role: 'cell', class: 'id' }, event.deleted ? h('bdi', null, line(event.documentId))
      : h('a', { href: link('m', event.mirror ?? '', 'd', name, event.documentId) }, h('bdi', null, line(event.documentId)))));
  return { element, update: () => {} };
}

/** Shows the view in `main` until `signal` is aborted. */
export function eventsView(main, { signal, parameters, go }) {
  const state = mark();
  const status = h('p', { role: 'status', class: 'stream' }, state.element);
  const notices = h('ul', { class: 'problems' });
  const rows = h('tbody', { role: 'rowgroup' });
  const [seen, empty] = [h('p', { class: 'note' }), h('p', { class: 'note' }, 'Events appear here when documents are written or deleted.')];
  let held = null;
  const mirrorField = field('Mirror', { type: 'search', value: parameters.get('mirror') ?? '', autocomplete: 'off', spellcheck: 'false', oninput: () => choose() });
  const idField = field('Id contains', { type: 'search', value: parameters.get('id') ?? '', autocomplete: 'off', spellcheck: 'false', oninput: () => choose() });
  const [mirror, id] = [mirrorField.lastChild, idField.lastChild];
  const hold = h('button', { type: 'button', 'aria-pressed': 'false', onclick: () => {
    held = held ? null : { list: [...events.list], total: events.total };
    hold.setAttribute('aria-pressed', String(Boolean(held)));
    show();
  } }, 'Hold the list');

  const fits = (event) => (!mirror.value || event.mirror === mirror.value.trim()) && event.documentId.includes(id.value);
  const show = () => {
    const [level, words] = STATES[events.state.word];
    state.update(level, words(events.state));
    fill(notices, JSON.stringify(events.notices), () => events.notices.map(noticeItem));
    const list = (held?.list ?? events.list).filter(fits).slice(-SHOWN).reverse();
    keyed(rows, list, ({ number: key }) => key, row);
    rows.parentElement.hidden = list.length === 0;
    empty.hidden = list.length > 0;
    const later = held ? events.total - held.total : 0;
    const whole = `${count(events.total, 'event')} in the ${duration((Date.now() - events.opened) / 1000)} since the page was opened.`;
    setText(seen, held ? `The list is held. ${count(later, 'event')} came later.` : `${whole} The newest ${number(SHOWN)} are shown.`);
    setText(hold, held ? 'Let the list move again' : 'Hold the list');
    setAttribute(main.querySelector('.stream'), 'data-level', level);
  };
  const choose = () => {
    go('#/events', { mirror: mirror.value.trim(), id: id.value });
    show();
  };
  main.append(
    h('div', { class: 'bar' }, h('h1', { tabindex: '-1' }, 'Live events'), hold),
    status, notices,
    h('search', { class: 'row' }, mirrorField, idField),
    seen, empty,
    h('table', { class: 'events stacks', role: 'table' },
      h('caption', { class: 'hidden' }, 'Write events, the newest one first'),
      h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, ['Time', 'What', 'Mirror', 'Collection', 'Document'].map((label) => h('th', { scope: 'col', role: 'columnheader' }, label)))),
      rows));
  events.addEventListener('change', show, { signal });
  const timer = setInterval(show, 5000);
  signal.addEventListener('abort', () => clearInterval(timer));
  show();
  return show;
}
