// JSON as a tree that is unfolded piece by piece. Numbers, order and repeated members stay as the body has
// them, which a parsed value would lose. Everything is text; nothing is executed.

import { h } from './dom.js';
import { count, line, number } from './words.js';

/** The members that are shown at once, and the characters of a string. */
const MEMBERS = 100;
const CHARACTERS = 2000;
const MOST_CHARACTERS = 200_000;

const isSpace = (code) => code === 32 || code === 9 || code === 10 || code === 13;

function skipSpace(text, at) {
  while (isSpace(text.charCodeAt(at))) at += 1;
  return at;
}

/** The end of the string that begins at `at`. */
function stringEnd(text, at) {
  for (;;) {
    at = text.indexOf('"', at + 1);
    if (at < 0) return text.length;
    let slashes = 0;
    while (text[at - 1 - slashes] === '\\') slashes += 1;
    if (slashes % 2 === 0) return at + 1;
  }
}

/** The end of the value that begins at `at`, however deep it is. */
function valueEnd(text, at) {
  const first = text[at];
  if (first === '"') return stringEnd(text, at);
  if (first !== '{' && first !== '[') {
    while (at < text.length && !',]}'.includes(text[at]) && !isSpace(text.charCodeAt(at))) at += 1;
    return at;
  }
  let depth = 0;
  const next = /["{}[\]]/g;
  next.lastIndex = at;
  for (let found = next.exec(text); found; found = next.exec(text)) {
    if (found[0] === '"') next.lastIndex = stringEnd(text, found.index);
    else if (found[0] === '{' || found[0] === '[') depth += 1;
    else if ((depth -= 1) === 0) return found.index + 1;
  }
  return text.length;
}

/** The members of an object or array as `[key, begin, end]`; `key` is the raw text, or null in an array. */
function* members(text, at) {
  const isObject = text[at] === '{';
  at = skipSpace(text, at + 1);
  while (at < text.length && text[at] !== '}' && text[at] !== ']') {
    let key = null;
    if (isObject) {
      const end = stringEnd(text, at);
      key = text.slice(at, end);
      at = skipSpace(text, skipSpace(text, end) + 1);
    }
    const end = valueEnd(text, at);
    yield [key, at, end];
    at = skipSpace(text, end);
    if (text[at] === ',') at = skipSpace(text, at + 1);
  }
}

/** A string as the reader sees it: decoded, with what is invisible written out. */
function spoken(raw) {
  try {
    return line(JSON.parse(raw));
  } catch {
    return line(raw);
  }
}

function stringValue(raw) {
  const text = spoken(raw.length > MOST_CHARACTERS ? `${raw.slice(0, MOST_CHARACTERS).replace(/\\(u[0-9a-f]{0,3})?$/i, '')}"` : raw);
  const value = h('span', { class: 'string' }, h('bdi', null, `"${text.slice(0, CHARACTERS)}${text.length > CHARACTERS ? '…' : '"'}`));
  if (text.length <= CHARACTERS) return value;
  const isCut = raw.length > MOST_CHARACTERS;
  const more = h('button', { type: 'button', class: 'quiet', onclick: () => {
    value.replaceChildren(h('bdi', null, `"${text}${isCut ? '…' : '"'}`));
    more.replaceWith(isCut ? h('span', { class: 'note' }, ' The rest is in the download.') : '');
  } }, `Show ${isCut ? `the first ${number(MOST_CHARACTERS)}` : `all ${number(text.length)}`} characters`);
  return [value, ' ', more];
}

function scalar(text, begin, end) {
  const raw = text.slice(begin, end);
  if (raw[0] === '"') return stringValue(raw);
  const kind = raw === 'null' ? 'null' : raw === 'true' || raw === 'false' ? 'bool' : 'number';
  return h('span', { class: kind }, line(raw.length > CHARACTERS ? `${raw.slice(0, CHARACTERS)}…` : raw));
}

const label = (key, at) => (key === null ? h('span', { class: 'index' }, `${number(at)}: `) : h('span', { class: 'key' }, h('bdi', null, spoken(key)), ': '));

/** The first entries of an object or array, and a button for more. */
function entries(text, begin) {
  const all = members(text, begin);
  const list = h('ul', { class: 'json' });
  let at = 0;
  const more = () => {
    for (let shown = 0; shown < MEMBERS; shown += 1) {
      const { done, value } = all.next();
      if (done) return;
      const [key, from, to] = value;
      list.append(h('li', null, node(text, from, to, label(key, at))));
      at += 1;
    }
    const button = h('button', { type: 'button', class: 'quiet', onclick: () => {
      const before = list.childElementCount;
      button.parentElement.remove();
      more();
      (list.children[before - 1]?.querySelector('summary, button') ?? list.lastElementChild?.querySelector('button'))?.focus();
    } }, `Show the next ${MEMBERS}`);
    // One more is looked at before a button is shown.
    const peek = all.next();
    if (peek.done) return;
    const [key, from, to] = peek.value;
    list.append(h('li', null, node(text, from, to, label(key, at))), h('li', null, button));
    at += 1;
  };
  more();
  return list;
}

/** What a folded object or array says of itself. */
function summary(text, begin, end) {
  const isObject = text[begin] === '{';
  let many = 0;
  for (const _ of members(text, begin)) {
    many += 1;
    if (many > 10_000 || (many > 200 && end - begin > 2_000_000)) return `more than ${number(many - 1)} ${isObject ? 'members' : 'items'}`;
  }
  return count(many, isObject ? 'member' : 'item');
}

function node(text, begin, end, name, open = false) {
  const first = text[begin];
  if (first !== '{' && first !== '[') return [name, scalar(text, begin, end)].flat();
  const brackets = first === '{' ? '{ }' : '[ ]';
  if (text[skipSpace(text, begin + 1)] === brackets[2]) return [name, h('span', { class: 'null' }, brackets)];
  const isShort = end - begin < 300;
  const details = h('details', { open: open || isShort });
  details.append(h('summary', null, name, h('span', { class: 'fold' }, `${brackets[0]}…${brackets[2]} `), h('span', { class: 'note' }, summary(text, begin, end))));
  // Depth alone must not make many elements at once.
  const unfold = () => {
    if (details.open && details.childElementCount === 1) details.append(entries(text, begin));
  };
  details.addEventListener('toggle', unfold);
  if (open) unfold();
  return [details];
}

/** The tree of a text that is JSON. */
export function jsonTree(text) {
  const begin = skipSpace(text, 0);
  return h('div', { class: 'tree' }, node(text, begin, valueEnd(text, begin), null, true));
}

/** Whether a text is JSON. */
export function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
