// What all views have in common: they ask again while they are seen, confirm, and say what came of an order.

import { Problem, hasToken, order, setToken } from './api.js';
import { h, refocus, setText, uniqueId } from './dom.js';
import { count, line, marked, prose } from './words.js';

/**
 * Calls `work` now and then again and again, while the page is visible and `signal` is not aborted. The pause
 * is at least `pause` milliseconds, and longer if the work takes long. Returns a function that does it now.
 */
export function again(signal, pause, work, failed) {
  let [timer, busy, soon] = [null, false, false];
  const run = async () => {
    clearTimeout(timer);
    if (signal.aborted) return;
    if (busy) return void (soon = true);
    [busy, soon] = [true, false];
    const begun = Date.now();
    try {
      if (!document.hidden) await work();
    } catch (error) {
      if (!signal.aborted) failed(error);
    }
    busy = false;
    timer = setTimeout(run, soon ? 0 : Math.max(pause, 6 * (Date.now() - begun)));
  };
  document.addEventListener('visibilitychange', () => { if (!document.hidden) run(); }, { signal });
  signal.addEventListener('abort', () => clearTimeout(timer));
  run();
  return run;
}

/** Says something in the page's status line. */
export function notice(text, level = 'well') {
  const place = document.getElementById('notice');
  place.dataset.level = level;
  setText(place, text);
  clearTimeout(place.timer);
  place.timer = setTimeout(() => setText(place, ''), 15_000);
}

/** An error as a part of a view. */
export function trouble(error) {
  const text = error instanceof Problem ? line(error.message) : `This is a bug in the page: ${line(error.message)}`;
  return h('p', { class: 'trouble', 'data-level': 'bad' }, marked('bad', 'Error'), ' ', prose(text));
}

/** A button that gives an order, and says what came of it. */
export function orderButton(label, where, words, after) {
  const button = h('button', { type: 'button', onclick: async () => {
    if (button.getAttribute('aria-disabled')) return;
    button.setAttribute('aria-disabled', 'true');
    try {
      notice(words(await order(where)));
    } catch (error) {
      notice(`${label}: ${line(error.message)}`, 'bad');
    }
    button.removeAttribute('aria-disabled');
    after?.();
  } }, label);
  return button;
}

const EFFECTS = {
  done: 'obeyed',
  later: 'obeyed by the next run',
  already: 'already so',
  paused: 'paused, so nothing is done',
  ended: 'ended, so nothing is done',
  unrepeatable: 'cannot be read again',
};

/** What an order did, of the list of its effects. */
export function effects(label) {
  return (ordered) => {
    const counts = new Map();
    for (const { effect } of ordered) counts.set(effect, (counts.get(effect) ?? 0) + 1);
    const parts = [...counts].map(([effect, many]) => `${count(many, 'collection')}: ${EFFECTS[effect] ?? line(effect)}`);
    return `${label}: ${parts.join('; ') || 'there are no collections'}.`;
  };
}

/** Asks before something that cannot be undone. Resolves to whether it was confirmed. */
export function confirmed({ title, text, confirm }) {
  const [heading, body] = [uniqueId('title'), uniqueId('text')];
  const dialog = h('dialog', { 'aria-labelledby': heading, 'aria-describedby': body },
    h('h2', { id: heading }, title),
    h('div', { id: body }, text),
    h('div', { class: 'buttons' },
      h('button', { type: 'button', autofocus: true, onclick: () => dialog.close('no') }, 'Cancel'),
      h('button', { type: 'button', class: 'danger', onclick: () => dialog.close('yes') }, confirm)));
  document.getElementById('dialogs').append(dialog);
  const opener = document.activeElement;
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      resolve(dialog.returnValue === 'yes');
      dialog.remove();
      // The view may have been drawn again meanwhile.
      if (!opener.isConnected) refocus(document, opener);
    });
    dialog.showModal();
  });
}

/** The form that asks for a token. */
export function tokenForm(signedIn) {
  const id = uniqueId('token');
  const wrong = hasToken();
  const input = h('input', { id, type: 'password', autocomplete: 'off', spellcheck: 'false', required: true, 'aria-describedby': `${id}-hint` });
  const form = h('form', { class: 'panel token', onsubmit: (event) => {
    event.preventDefault();
    setToken(input.value.trim());
    signedIn();
  } },
    h('h1', { tabindex: '-1' }, 'This agent asks for a token'),
    wrong ? h('p', { class: 'trouble', role: 'alert' }, 'The agent does not accept the token that this page has sent.') : null,
    h('p', { id: `${id}-hint` }, 'An administrator of the agent makes a token with ', h('code', null, 'plainfold token add'),
      '. A token with the role “read” shows everything; “operate” gives orders; “admin” releases deletions. The page keeps the token until this tab is closed.'),
    h('label', { for: id }, 'Token'),
    h('div', { class: 'row' }, input, h('button', { type: 'submit', class: 'primary' }, 'Open')));
  return { element: form, focus: () => input.focus() };
}

/** Links to where a view is. The last part is the view itself. */
export function trail(...parts) {
  const links = parts.map(([label, href], at) =>
    h('li', null, at < parts.length - 1 ? h('a', { href }, label) : h('span', { 'aria-current': 'page' }, label)));
  return h('nav', { 'aria-label': 'Where you are', class: 'trail' }, h('ol', null, links));
}

/** A hash that leads to a view. */
export const link = (...parts) => `#/${parts.map(encodeURIComponent).join('/')}`;

/** A table with headings; `rows` is its body. */
export function table(caption, headings, rows, className) {
  return h('table', { class: className, role: 'table' },
    h('caption', { class: 'hidden' }, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, headings.map(([label, kind]) =>
      h('th', { scope: 'col', role: 'columnheader', class: kind }, label)))),
    rows);
}
