// The view of a mirror: its state, orders, brakes, and its collections in pages.

import { Problem, ask, path, query } from './api.js';
import { chart } from './chart.js';
import { field, fill, h, keyed, setAttribute, setText } from './dom.js';
import { jobs } from './jobs.js';
import { askToRelease } from './release.js';
import { events } from './stream.js';
import { again, effects, link, orderButton, table, trail, trouble } from './view.js';
import { count, duration, judgeCollection, judgeMirror, line, mark, number, phaseWords, problemList, prose, refreshTimes, time } from './words.js';

/** The collections that a page of the table has. */
const PAGE = 50;

/** All collections of a mirror, by as few requests as the agent permits. */
async function collectionsOf(name, signal) {
  const all = [];
  let after;
  do {
    const page = await ask(path(name, 'collections') + query({ limit: 1000, after }), { signal });
    all.push(...page.collections);
    after = page.next;
  } while (after);
  return all;
}

/** The collections of a mirror that is not at work, as far as its directory has them. */
async function archived(name, signal) {
  try {
    return (await ask(path(name, 'archive'), { signal })).collections.map(({ collection }) => collection);
  } catch (error) {
    if (error.status === 401 || error.name === 'AbortError') throw error;
    return [];
  }
}

const FIGURES = [
  ['Written', 'documents'],
  ['Deleted', 'deletions'],
  ['Failures', 'failures'],
  ['Held back', 'held_back'],
];

/** A line of the table of collections. */
function row(mirror) {
  return ({ one }) => {
    const name = one.collection;
    const state = mark();
    const note = h('span', { class: 'note' });
    const figures = FIGURES.map(([label]) => h('td', { role: 'cell', class: 'figure', 'data-label': label }));
    const lag = h('td', { role: 'cell', class: 'figure', 'data-label': 'Lag' });
    const element = h('tr', { role: 'row' },
      h('th', { scope: 'row', role: 'rowheader' }, h('a', { href: link('m', mirror, 'c', name) }, line(name))),
      h('td', { role: 'cell', class: 'state', 'data-label': 'State' }, state.element, note),
      figures, lag,
      h('td', { role: 'cell', class: 'go' }, h('a', { href: link('m', mirror, 'd', name), 'aria-label': `Browse the documents of ${line(name)}` }, 'Browse')));
    const update = ({ one: now, level, word, problems }) => {
      setAttribute(element, 'data-level', level);
      state.update(level, word);
      fill(note, problems[0]?.text, () => prose(problems[0]?.text ?? ''));
      FIGURES.forEach(([, key], at) => {
        setText(figures[at], number(now[key]));
        figures[at].classList.toggle('zero', !now[key]);
        figures[at].classList.toggle('alarm', at > 1 && now[key] > 0);
      });
      setText(lag, now.lag_seconds === null ? '–' : duration(now.lag_seconds));
    };
    return { element, update };
  };
}

const URGENCY = { bad: 0, warn: 1 };

/** What is wrong first, then by name. */
const byUrgency = (left, right) => (URGENCY[left.level] ?? 2) - (URGENCY[right.level] ?? 2);

/** The facts about a mirror as pairs. */
function facts(mirror) {
  const last = mirror.last_run;
  return [
    ['Source', line(mirror.source)],
    ['Directory', line(mirror.directory)],
    ['Schedule', line(mirror.schedule)],
    mirror.state === 'running' ? ['Running since', time(mirror.since)] : null,
    mirror.next ? ['Next start', time(mirror.next)] : null,
    ['Documents', mirror.documents === null ? 'not known' : number(mirror.documents)],
    ['Collections', mirror.collections === null ? 'not known' : number(mirror.collections)],
    ['Lag', mirror.lag_seconds === null ? 'not known' : duration(mirror.lag_seconds)],
    last ? ['Last run', [last.complete ? 'complete, ended ' : 'not complete, ended ', time(last.ended_at)]] : null,
  ].filter(Boolean);
}

/** Whether a value needs a line of its own, everywhere (`whole`) or on a phone (`long`). */
function room(value) {
  const { length } = [value].flat().map((part) => part?.textContent ?? String(part)).join('');
  return length > 30 ? 'whole' : length > 18 ? 'long' : null;
}

/** A list of facts. */
export const factList = (pairs) =>
  h('dl', { class: 'facts' }, pairs.map(([name, value]) => h('div', { class: room(value) }, h('dt', null, name), h('dd', null, value))));

/** The collections whose deletions are held back, each with its button. */
function brakes(name, held, refresh) {
  if (held.length === 0) return [];
  return [h('section', { class: 'panel', 'data-level': 'warn', 'aria-labelledby': 'brakes' },
    h('h2', { id: 'brakes' }, 'Deletions held back'),
    h('p', null, 'The source deleted more documents at once than the protection against mass deletion permits. The mirror still has them. Check whether the source lost them by mistake. If not, release them.'),
    h('ul', { class: 'brakes' }, held.map((one) => h('li', null,
      h('a', { href: link('m', name, 'c', one.collection) }, line(one.collection)),
      h('span', { class: 'figure' }, count(one.held_back, 'deletion')),
      h('button', { type: 'button', 'aria-label': `Release the deletions of ${line(one.collection)}…`, onclick: () => askToRelease(name, one.collection, refresh) }, 'Release…')))))];
}

/** Shows the view in `main` until `signal` is aborted. */
export function mirrorView(main, { signal, parts: [name], parameters, go }) {
  const state = mark();
  const drawing = chart();
  const [error, wrong, about, held, orders, work] = [h('div'), h('div'), h('div'), h('div'), h('div', { class: 'buttons' }), h('div')];
  const rows = h('tbody', { role: 'rowgroup' });
  const shown = h('p', { class: 'note', role: 'status' });
  const [pager, below] = [h('div', { class: 'pager' }), h('div', { class: 'pager' })];
  const atRest = h('div');
  let judged = [];
  let page = Math.max(1, Number(parameters.get('page')) || 1);
  const choice = field('State', { onchange: () => choose() }, 'select',
    h('option', { value: '' }, 'all states'), h('option', { value: 'attention' }, 'needs attention'),
    phaseWords().map(([value, label]) => h('option', { value }, label)));
  const search = field('Name', { type: 'search', autocomplete: 'off', spellcheck: 'false', oninput: () => choose() });
  const [phase, text] = [choice.lastChild, search.lastChild];
  phase.value = parameters.get('state') ?? '';
  text.value = parameters.get('name') ?? '';

  const fits = ({ one, level }) =>
    one.collection.toLowerCase().includes(text.value.trim().toLowerCase()) &&
    (phase.value === 'attention' ? level === 'bad' || level === 'warn' : !phase.value || one.phase === phase.value);
  const show = () => {
    const wanted = judged.filter(fits);
    const pages = Math.max(1, Math.ceil(wanted.length / PAGE));
    page = Math.min(page, pages);
    const from = (page - 1) * PAGE;
    keyed(rows, wanted.slice(from, from + PAGE), ({ one }) => one.collection, row(name));
    const some = wanted.length === judged.length ? '' : ` of ${number(judged.length)}`;
    setText(shown, `${number(wanted.length)}${some} ${judged.length === 1 ? 'collection' : 'collections'}${pages > 1 ? `, page ${page} of ${pages}` : ''}. Counts of written and deleted documents are those of this run.`);
    for (const place of [pager, below]) fill(place, `${page}/${pages}`, () => pages === 1 ? [] : [
      h('button', { type: 'button', disabled: page === 1, onclick: () => turn(-1) }, 'Previous page'),
      h('button', { type: 'button', disabled: page === pages, onclick: () => turn(1) }, 'Next page')]);
  };
  const remember = () => go(link('m', name), { name: text.value.trim(), state: phase.value, page: page > 1 ? page : '' });
  const choose = () => { page = 1; remember(); show(); };
  // The new page is read from its top, where the same button has the focus.
  const turn = (step) => {
    page += step;
    remember();
    show();
    table_.scrollIntoView({ block: 'start' });
    const [back, forth] = pager.children;
    (step > 0 ? [forth, back] : [back, forth]).find((button) => button && !button.disabled)?.focus({ preventScroll: true });
  };

  const table_ = h('section', { 'aria-labelledby': 'collections' },
    h('div', { class: 'bar' }, h('h2', { id: 'collections' }, 'Collections'), h('search', { class: 'row' }, search, choice)),
    h('div', { class: 'bar' }, shown, pager),
    table('Collections', [['Collection'], ['State'], ...FIGURES.map(([label]) => [label, 'figure']), ['Lag', 'figure'], ['Documents', 'go']], rows, 'collections stacks'),
    below);
  main.append(
    trail(['Overview', '#/'], [name]),
    h('div', { class: 'bar' }, h('h1', { tabindex: '-1' }, name), state.element, h('a', { class: 'end', href: `#/events?${new URLSearchParams({ mirror: name })}` }, 'Live events')),
    error, wrong, orders, held,
    h('section', { class: 'panel split', 'aria-label': 'Facts and rate' }, about, drawing.element),
    work, atRest, table_);
  events.addEventListener('change', () => drawing.update(name), { signal });
  const job = jobs(work, name, signal);

  const refresh = again(signal, 3000, async () => {
    const mirror = await ask(path(name), { signal });
    let collections = null;
    try {
      collections = await collectionsOf(name, signal);
    } catch (failed) {
      if (!(failed instanceof Problem) || failed.status !== 409) throw failed;
    }
    const now = judgeMirror(mirror);
    state.update(now.level, now.word);
    // What is held back has a part of its own.
    const problems = now.problems.filter((one) => !one.isHeld || collections === null);
    fill(wrong, JSON.stringify(problems), () => problems.length > 0 ? [h('div', { class: 'panel', 'data-level': now.level }, problemList(problems))] : []);
    fill(about, JSON.stringify(facts(mirror).map(([, value]) => (value instanceof Node ? value.dateTime : String(value)))), () => [factList(facts(mirror))]);
    judged = (collections ?? []).map((one) => ({ one, ...judgeCollection(one) })).sort(byUrgency);
    const braked = (collections ?? []).filter((one) => one.held_back > 0);
    fill(held, JSON.stringify(braked.map((one) => [one.collection, one.held_back])), () => brakes(name, braked, refresh));
    const paused = (collections ?? []).some((one) => one.phase === 'paused');
    const moving = (collections ?? []).some((one) => one.phase !== 'paused');
    fill(orders, `${collections !== null} ${paused} ${moving} ${mirror.state}`, () => buttons(name, mirror, collections !== null, { paused, moving }, refresh));
    table_.hidden = collections === null;
    if (collections !== null) job.update();
    else fill(work, 'none', () => []);
    if (collections === null) {
      const found = await archived(name, signal);
      fill(atRest, JSON.stringify(found), () => resting(name, found));
    } else fill(atRest, 'at work', () => []);
    fill(error, '', () => []);
    show();
    drawing.update(name);
    refreshTimes(main);
  }, (failed) => fill(error, failed.message, () => [trouble(failed)]));
  return refresh;
}

/** The orders that make sense now. */
function buttons(name, mirror, atWork, { paused, moving }, refresh) {
  if (!atWork) {
    if (!['waiting', 'failed', 'parked'].includes(mirror.state)) return [];
    const words = (started) => (started ? `${name} starts.` : `${name} is at work already.`);
    return [orderButton('Start now', path(name, 'start'), words, refresh)];
  }
  const give = (label, action) => orderButton(label, path(name, action), effects(label), refresh);
  return [
    moving ? give('Pause', 'pause') : null,
    paused ? give('Resume', 'resume') : null,
    give('Catch up now', 'catch-up'),
    give('Full scan', 'rescan'),
  ];
}

/** What a mirror that is not at work still has. */
function resting(name, found) {
  if (found.length === 0) return [];
  return [h('section', { 'aria-labelledby': 'archived' },
    h('h2', { id: 'archived' }, 'Documents on disk'),
    h('p', { class: 'note' }, 'The mirror is not at work now. Its documents can be read.'),
    h('ul', { class: 'columns' }, found.map((one) => h('li', null, h('a', { href: link('m', name, 'd', one) }, line(one))))))];
}
