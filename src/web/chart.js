// How many changes were written in the last minutes, drawn from what the page has seen.

import { h, s, setAttribute, setText } from './dom.js';
import { BUCKET, BUCKETS, events } from './stream.js';
import { clock, number } from './words.js';

const perSecond = (changes) => {
  const rate = changes / (BUCKET / 1000);
  return rate === 0 || rate >= 10 ? number(Math.round(rate)) : rate.toFixed(1);
};

/** The path of bars, the newest one at the right. The whole width is that of all buckets. */
function bars(rates, width, height, most) {
  const step = width / BUCKETS;
  const first = BUCKETS - rates.length;
  return rates.map((changes, at) => {
    if (changes === 0) return '';
    const size = Math.max(1, (changes / most) * height);
    const x = ((first + at) * step).toFixed(2);
    return `M${x} ${height}v${(-size).toFixed(2)}h${(step * 0.8).toFixed(2)}v${size.toFixed(2)}z`;
  }).join('');
}

/** A small drawing for a row of a table, with the present rate as text. */
export function spark() {
  const [width, height] = [96, 20];
  const path = s('path', { fill: 'currentColor' });
  const floor = s('path', { d: `M0 ${height - 0.5}h${width}`, class: 'floor' });
  const drawing = s('svg', { viewBox: `0 0 ${width} ${height}`, width, height, 'aria-hidden': 'true', class: 'spark' }, floor, path);
  const text = h('span', { class: 'figure' });
  const update = (mirror) => {
    const rates = events.rate(mirror);
    setAttribute(path, 'd', bars(rates, width, height, Math.max(...rates, 1)));
    setText(text, `${perSecond(recent(rates))}/s`);
  };
  return { element: h('span', { class: 'rate' }, drawing, text), update };
}

/** The last bucket that is complete. */
const recent = (rates) => rates.at(rates.length > 1 ? -2 : -1) ?? 0;

/** A drawing with its words. */
export function chart() {
  const [width, height] = [600, 72];
  const path = s('path', { fill: 'currentColor' });
  const floor = s('path', { d: `M0 ${height - 0.5}h${width}`, class: 'floor' });
  const drawing = s('svg', { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', role: 'img', class: 'chart' }, floor, path);
  const [now, most, since] = [h('strong'), h('strong'), h('span')];
  const words = h('p', { class: 'legend' },
    h('span', null, 'now ', now), h('span', null, 'at most ', most), since);
  const update = (mirror) => {
    const rates = events.rate(mirror);
    const top = Math.max(...rates, 0);
    setAttribute(path, 'd', bars(rates, width, height, Math.max(top, 1)));
    setText(now, `${perSecond(recent(rates))}/s`);
    setText(most, `${perSecond(top)}/s`);
    const minutes = (BUCKETS * BUCKET) / 60_000;
    const young = Date.now() - events.opened < BUCKETS * BUCKET;
    const span = young ? `since the page was opened at ${clock(events.opened)}` : `in the last ${minutes} minutes`;
    setText(since, events.state.word === 'unsupported' ? 'not known: this agent has no stream of all mirrors' : span);
    setAttribute(drawing, 'aria-label', `Changes written ${span}: now ${perSecond(recent(rates))} a second, at most ${perSecond(top)} a second.`);
  };
  return { element: h('figure', null, h('figcaption', null, 'Changes written'), drawing, words), update };
}
