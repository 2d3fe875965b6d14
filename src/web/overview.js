// The view of all mirrors: one sentence that says whether all is well, what is not, and a line for each.

import { ask } from './api.js';
import { chart, spark } from './chart.js';
import { field, fill, h, keyed, setAttribute, setText } from './dom.js';
import { events } from './stream.js';
import { again, link, table, trouble } from './view.js';
import { count, duration, judgeMirror, line, mark, marked, number, problemList, prose, refreshTimes, time } from './words.js';

const sum = (mirrors, key) => mirrors.reduce((total, one) => total + (one[key] ?? 0), 0);

/** The sentence on top: `[level, text]`. */
export function sentence(judged, configTrouble) {
  const all = judged.map(({ mirror }) => mirror);
  const wrong = judged.filter(({ level }) => level === 'bad' || level === 'warn').length;
  if (wrong > 0) {
    const level = judged.some((one) => one.level === 'bad') ? 'bad' : 'warn';
    const needs = wrong === 1 ? 'needs' : 'need';
    return [level, `${number(wrong)} of ${count(all.length, 'mirror')} ${needs} attention.`];
  }
  if (configTrouble) return ['warn', 'The mirrors are well, but the config on disk is wrong.'];
  if (all.length === 0) return ['idle', 'The config names no mirror.'];
  const busy = judged.filter(({ level }) => level === 'busy').length;
  const documents = count(sum(all, 'documents'), 'document');
  if (busy > 0) {
    const [verb, whose] = busy === 1 ? ['is', 'its'] : ['are', 'their'];
    return ['busy', `Nothing is wrong. ${number(busy)} of ${count(all.length, 'mirror')} ${verb} still on ${whose} way to be complete.`];
  }
  const lags = all.map((one) => one.lag_seconds).filter((lag) => lag !== null && lag !== undefined);
  const lag = lags.length > 0 ? ` None is more than ${duration(Math.max(1, ...lags))} behind its source.` : '';
  const who = all.length === 1 ? 'The mirror is well' : `All ${count(all.length, 'mirror')} are well`;
  return ['well', `${who}: ${documents} in ${count(sum(all, 'collections'), 'collection')}.${all.length === 1 ? lag.replace('None is more', 'It is no more') : lag}`];
}

const FIGURES = [
  ['Collections', 'collections'],
  ['Documents', 'documents'],
  ['Failures', 'failures'],
  ['Held back', 'held_back'],
];

/** A line of the table. */
function row({ mirror }) {
  const [state, rate] = [mark(), spark()];
  const note = h('span', { class: 'note' });
  const figures = FIGURES.map(([label]) => h('td', { role: 'cell', class: 'figure', 'data-label': label }));
  const lag = h('td', { role: 'cell', class: 'figure', 'data-label': 'Lag' });
  const source = h('span', { class: 'note' });
  const element = h('tr', { role: 'row' },
    h('th', { scope: 'row', role: 'rowheader' }, h('a', { href: link('m', mirror.name) }, mirror.name), source),
    h('td', { role: 'cell', class: 'state', 'data-label': 'State' }, state.element, note),
    figures, lag,
    h('td', { role: 'cell', class: 'figure', 'data-label': 'Written' }, rate.element));
  const update = ({ mirror: now, level, word, problems }) => {
    setAttribute(element, 'data-level', level);
    state.update(level, word);
    setText(source, line(now.source));
    if (problems.length > 0) fill(note, problems[0].text, () => prose(problems[0].text));
    else if (now.state === 'waiting' && now.next) fill(note, now.next, () => ['next run ', time(now.next)]);
    else fill(note, '', () => []);
    FIGURES.forEach(([, key], at) => {
      const value = now[key];
      setText(figures[at], value === null || value === undefined ? '–' : number(value));
      figures[at].classList.toggle('zero', !value);
      figures[at].classList.toggle('none', value === null || value === undefined);
      figures[at].classList.toggle('alarm', at > 1 && value > 0);
    });
    lag.classList.toggle('none', now.lag_seconds === null);
    setText(lag, now.lag_seconds === null || now.lag_seconds === undefined ? '–' : duration(now.lag_seconds));
    rate.update(now.name);
  };
  return { element, update };
}

const LEVELS = [
  ['', 'all states'],
  ['attention', 'needs attention'],
  ['busy', 'starts, stops or catches up'],
  ['idle', 'waits for its schedule'],
  ['well', 'running'],
];

const fits = (one, name, level) =>
  (!name || one.mirror.name.includes(name) || one.mirror.source.toLowerCase().includes(name)) &&
  (!level || one.level === level || (level === 'attention' && (one.level === 'bad' || one.level === 'warn')));

/** Shows the view in `main` until `signal` is aborted. */
export function overview(main, { signal, parameters, go }) {
  const [top, text] = [mark(), h('span')];
  const drawing = chart();
  const [wrong, rows] = [h('div'), h('tbody', { role: 'rowgroup' })];
  const shown = h('p', { class: 'note', role: 'status' });
  const error = h('div');
  let judged = [];
  const choice = field('State', { onchange: () => choose() }, 'select', LEVELS.map(([value, label]) => h('option', { value }, label)));
  const search = field('Name or source', { type: 'search', autocomplete: 'off', spellcheck: 'false', oninput: () => choose() });
  const [level, name] = [choice.lastChild, search.lastChild];
  level.value = parameters.get('state') ?? '';
  name.value = parameters.get('name') ?? '';

  const show = () => {
    const wanted = judged.filter((one) => fits(one, name.value.trim().toLowerCase(), level.value));
    keyed(rows, wanted, ({ mirror }) => mirror.name, row);
    setText(shown, wanted.length === judged.length ? '' : `${number(wanted.length)} of ${count(judged.length, 'mirror')} shown.`);
    drawing.update();
  };
  const choose = () => {
    go('#/', { name: name.value.trim(), state: level.value });
    show();
  };
  main.append(
    h('h1', { tabindex: '-1', class: 'hidden' }, 'Overview'),
    h('section', { 'aria-label': 'Whether all is well', class: 'panel verdict' }, h('p', { role: 'status' }, top.element, text), wrong),
    error,
    h('section', { 'aria-label': 'Changes written', class: 'panel' }, drawing.element),
    h('section', { 'aria-labelledby': 'mirrors' },
      h('div', { class: 'bar' }, h('h2', { id: 'mirrors' }, 'Mirrors'), h('search', { class: 'row' }, search, choice)),
      shown,
      table('Mirrors', [['Mirror'], ['State'], ...FIGURES.map(([label]) => [label, 'figure']), ['Lag', 'figure'], ['Written', 'figure']], rows, 'mirrors stacks')));

  const words = { bad: 'Attention', warn: 'Attention', busy: 'Busy', idle: 'Idle', well: 'Well' };
  events.addEventListener('change', show, { signal });
  return again(signal, 3000, async () => {
    const list = await ask('/v1/mirrors', { signal });
    judged = list.mirrors.map((mirror) => ({ mirror, ...judgeMirror(mirror) }));
    const [state, said] = sentence(judged, list.config_trouble);
    top.update(state, words[state]);
    setText(text, said);
    setAttribute(main.querySelector('.verdict'), 'data-level', state);
    const found = judged.flatMap((one) => one.problems.map((problem) => ({ ...problem, name: one.mirror.name })));
    if (list.config_trouble) {
      found.unshift({ level: 'warn', name: null, text: `The config on disk is not in force: ${line(list.config_trouble)}`, remedy: 'Mend the config. The agent reads it again when it changes.' });
    }
    fill(wrong, JSON.stringify(found), () => toMend(found));
    fill(error, '', () => []);
    show();
    refreshTimes(main);
  }, (failed) => fill(error, failed.message, () => [trouble(failed)]));
}

/** The problems with what to do; the first ones at once. */
function toMend(found) {
  const FIRST = 6;
  const items = found.map((one) => ({ ...one, head: one.name ? h('a', { href: link('m', one.name) }, one.name) : marked('warn', 'Config') }));
  const rest = items.slice(FIRST);
  return [
    items.length > 0 ? problemList(items.slice(0, FIRST)) : null,
    rest.length > 0 ? h('details', null, h('summary', null, `${count(rest.length, 'more problem')}`), problemList(rest)) : null,
  ];
}
