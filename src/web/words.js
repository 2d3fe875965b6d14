// How numbers, times and states are said. Pure: nothing here asks the agent.

import { h, s, setAttribute, setText } from './dom.js';

const GROUPED = new Intl.NumberFormat('en');

/** 12345 as `12,345`. */
export const number = (value) => GROUPED.format(value);

/** `1 document`, `2 documents`. */
export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? '' : 's'}`;

/**
 * Control characters, halves of a character, and what is invisible or turns the direction of a text (DI). Line
 * feeds, tabs, and the selectors of the variant of a letter or an emoji stay.
 */
const UNSEEN = /(?![\t\n\ufe00-\ufe0f\u{e0100}-\u{e01ef}])[\p{Cc}\p{Cs}\p{DI}\u2028\u2029\ufff9-\ufffb]/gu;

/** Characters that cannot be seen or turn the direction of a text, written out: `\u202e`, `\u{e0041}`. */
export const plain = (text) =>
  String(text).replace(UNSEEN, (one) => {
    const code = one.codePointAt(0).toString(16);
    return code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, '0')}`;
  });

/** The same on one line. */
export const line = (text) => plain(text).replace(/\n/g, '\\n').replace(/\t/g, '\\t');

/** A text of the agent: what it quotes in backticks is set as code. */
export const prose = (text) => text.split(/`([^`\n]+)`/).map((part, at) => (at % 2 ? h('code', null, part) : part)).filter(Boolean);

/** A number of seconds: `4 s`, `3 min`, `2 h 5 min`, `3 days`. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return minutes < 10 && whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${number(Math.floor(hours / 24))} days`;
}

/** A number of bytes: `512 bytes`, `3.4 MiB`. */
export function bytes(value) {
  if (value < 1024) return count(value, 'byte');
  let [amount, unit] = [value / 1024, 0];
  while (amount >= 1024 && unit < 4) [amount, unit] = [amount / 1024, unit + 1];
  return `${amount.toFixed(amount < 10 ? 1 : 0)} ${['KiB', 'MiB', 'GiB', 'TiB', 'PiB'][unit]}`;
}

function relative(at) {
  const seconds = (Date.now() - at.getTime()) / 1000;
  if (Math.abs(seconds) < 1) return 'now';
  return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
}

const EXACT = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'long' });
const CLOCK = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });

/** The time of the day, where the reader is. */
export const clock = (at) => CLOCK.format(at);

/** A time in relative words, with the exact time as its title. */
export function time(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return h('span', null, line(text));
  return h('time', { datetime: text, title: EXACT.format(at) }, relative(at));
}

/** Says all times of a part of the page again. */
export function refreshTimes(root) {
  for (const one of root.querySelectorAll('time[datetime]')) setText(one, relative(new Date(one.dateTime)));
}

const ring = () => s('circle', { cx: 6, cy: 6, r: 4.25, fill: 'none', stroke: 'currentColor', 'stroke-width': 1.5 });

const MARKS = {
  well: () => [s('circle', { cx: 6, cy: 6, r: 5 })],
  idle: () => [ring()],
  busy: () => [ring(), s('path', { d: 'M6 2a4 4 0 0 1 0 8z' })],
  warn: () => [s('path', { d: 'M6 .8 11.6 11H.4z' })],
  bad: () => [s('path', { d: 'M1 1h10v10H1z' })],
};

/** A mark of a level, which has a shape of its own, with a word that never depends on colour. */
export function mark() {
  const sign = s('svg', { viewBox: '0 0 12 12', width: 12, height: 12, 'aria-hidden': 'true', fill: 'currentColor' });
  const word = h('span');
  const element = h('span', { class: 'mark' }, sign, word);
  const update = (level, text) => {
    if (element.dataset.level !== level) {
      setAttribute(element, 'data-level', level);
      sign.replaceChildren(...MARKS[level]());
    }
    setText(word, text);
  };
  return { element, update };
}

/** A mark that does not change. */
export function marked(level, text) {
  const made = mark();
  made.update(level, text);
  return made.element;
}

/** The seconds of lag from which a mirror is said to be late, as alerts do unless the config says otherwise. */
const LATE = 300;

const problem = (level, text, remedy) => ({ level, text, remedy });

/** Deletions that wait for a person. */
function heldBack(many) {
  const text = `${count(many, 'deletion')} ${many === 1 ? 'is' : 'are'} held back.`;
  return { ...problem('warn', text, 'Check whether the source lost these documents by mistake. If not, release them.'), isHeld: true };
}

/** A text of the agent with the end of a sentence, and as a whole sentence. */
const ended = (text) => `${text}${/[.!?]$/.test(text) ? '' : '.'}`;
const sentence = (text) => ended(`${text.charAt(0).toUpperCase()}${text.slice(1)}`);

/** How a mirror is: `{ level, word, problems }`, and each problem with what to do. */
export function judgeMirror(mirror) {
  const problems = [];
  let [level, word] = ['well', 'running'];
  const start = 'Press “Start now” on its page when it is mended.';
  switch (mirror.state) {
    case 'parked':
      problems.push(problem('bad', ended(line(mirror.error)), sentence(line(mirror.remedy))));
      word = 'parked';
      break;
    case 'failed':
      problems.push(problem('bad', ended(line(mirror.error)), `It starts again by itself. ${start}`));
      word = 'failed';
      break;
    case 'starting':
    case 'stopping':
      [level, word] = ['busy', mirror.state];
      break;
    case 'waiting':
      [level, word] = ['idle', 'waits for its schedule'];
      if (mirror.last_run && !mirror.last_run.complete) {
        const trouble = mirror.last_run.trouble ?? 'its last run is not complete';
        problems.push(problem('warn', line(trouble), 'The next run tries again.'));
      }
      break;
    default:
      [level, word] = mirror.caught_up ? ['well', 'running'] : ['busy', 'catches up'];
  }
  if (mirror.damaged > 0) {
    problems.push(problem('bad', `${count(mirror.damaged, 'document')} on the disk ${mirror.damaged === 1 ? 'is' : 'are'} damaged.`, 'Check the disk. Then press “Repair…” on the page of the mirror.'));
  }
  if (mirror.held_back > 0) problems.push(heldBack(mirror.held_back));
  if (mirror.trouble) {
    problems.push(problem('warn', line(mirror.trouble), 'The mirror tries again by itself.'));
  }
  if (mirror.failures > 0) {
    problems.push(problem('warn', `${count(mirror.failures, 'document')} could not be mirrored.`, 'The page of its collection has the reason.'));
  }
  if (mirror.lag_seconds > LATE && mirror.state === 'running' && problems.length === 0) {
    const what = mirror.caught_up ? 'Check whether its source answers.' : 'It still catches up. Wait.';
    problems.push(problem('warn', `It may be ${duration(mirror.lag_seconds)} behind its source.`, what));
  }
  return { level: worst(level, problems), word, problems };
}

const worst = (level, problems) =>
  problems.some((one) => one.level === 'bad') ? 'bad' : problems.length > 0 ? 'warn' : level;

const PHASES = {
  queued: ['busy', 'waits for its turn'],
  'catching-up': ['busy', 'catches up'],
  scanning: ['busy', 'full scan'],
  live: ['well', 'follows'],
  waiting: ['warn', 'waits and tries again'],
  'caught-up': ['well', 'caught up'],
  stopped: ['idle', 'stopped'],
  paused: ['idle', 'paused'],
  failed: ['bad', 'failed'],
  vanished: ['warn', 'gone from the source'],
};

/** The words of the phases, by their names in the API. */
export const phaseWords = () => Object.entries(PHASES).map(([name, [, word]]) => [name, word]);

/** How a collection is. */
export function judgeCollection(one) {
  const [level, word] = PHASES[one.phase] ?? ['idle', line(one.phase)];
  const problems = [];
  if (one.trouble) {
    const remedies = {
      failed: 'Mend the cause, then press “Catch up now”.',
      vanished: 'The copy in the mirror is kept. If the collection should exist, check the source.',
      waiting: 'It tries again by itself. “Catch up now” tries at once.',
    };
    problems.push(problem(one.phase === 'failed' ? 'bad' : 'warn', line(one.trouble), remedies[one.phase] ?? 'The next run tries again.'));
  }
  if (one.security_trouble) {
    problems.push(problem('warn', `The security object could not be mirrored: ${line(one.security_trouble)}`, 'The next run tries again.'));
  }
  if (one.count_trouble) {
    problems.push(problem('warn', line(one.count_trouble), 'Press “Full scan”. If it is said again, check the source.'));
  }
  if (one.damaged > 0) {
    const is = one.damaged === 1 ? 'is' : 'are';
    problems.push(problem('bad', `${count(one.damaged, 'document')} on the disk ${is} damaged. ${line(one.damage ?? '')}`, 'Check the disk. Then press “Repair…” on the page of the mirror.'));
  }
  if (one.held_back > 0) problems.push(heldBack(one.held_back));
  if (one.failures > 0) {
    problems.push(problem('warn', `${count(one.failures, 'document')} could not be mirrored.`, 'The list below has the reasons. Later runs try again.'));
  }
  return { level: worst(level, problems), word, problems };
}

/** A list of problems with what to do. */
export function problemList(problems) {
  return h('ul', { class: 'problems' }, problems.map((one) =>
    h('li', { 'data-level': one.level },
      one.head ?? null,
      h('span', { class: 'what' }, prose(one.text)),
      one.remedy ? h('span', { class: 'remedy' }, prose(one.remedy)) : null)));
}
