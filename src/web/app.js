// Which view is shown: the hash of the address decides, so that a view can be linked and reloaded.

import { agent, hasToken, setToken } from './api.js';
import { collectionView } from './collection.js';
import { documentView } from './document.js';
import { documentsView } from './documents.js';
import { h, setAttribute, setText } from './dom.js';
import { eventsView } from './events.js';
import { mirrorView } from './mirror.js';
import { overview } from './overview.js';
import { events } from './stream.js';
import { tokenForm, trouble } from './view.js';
import { clock } from './words.js';

const main = document.getElementById('main');
const forget = document.getElementById('forget');
let leave = new AbortController();
let refresh = () => {};
let asksForToken = false;

/** What a hash names: parts of the path, decoded, and parameters. */
function read(hash) {
  const [path, query = ''] = hash.replace(/^#\/?/, '').split('?');
  let parts;
  try {
    parts = path.split('/').filter((part) => part !== '').map(decodeURIComponent);
  } catch {
    parts = ['?'];
  }
  return { parts, parameters: new URLSearchParams(query) };
}

/** Sets the hash; `shows` shows its view, otherwise it is only remembered. */
function go(hash, parameters, shows = false) {
  const given = Object.entries(parameters).filter(([, value]) => value !== '' && value !== null && value !== undefined);
  const target = given.length > 0 ? `${hash}?${new URLSearchParams(given)}` : hash;
  if (target === location.hash) return shows ? show() : undefined;
  if (shows) location.hash = target;
  else history.replaceState(null, '', target);
}

/** The view of a hash, what it is called, and what it is about. */
function choose({ parts }) {
  if (parts.length === 0) return [overview, 'Overview', 'overview'];
  if (parts[0] === 'events' && parts.length === 1) return [eventsView, 'Live events', 'events'];
  const [place, mirror, kind, collection, id] = parts;
  if (place === 'm' && parts.length === 2) return [mirrorView, mirror];
  if (place === 'm' && kind === 'c' && parts.length === 4) return [collectionView, `${collection} – ${mirror}`];
  if (place === 'm' && kind === 'd' && parts.length === 4) return [documentsView, `Documents of ${collection} – ${mirror}`];
  if (place === 'm' && kind === 'd' && parts.length === 5) return [documentView, `${id} – ${collection} – ${mirror}`];
  return [null, 'No such view'];
}

function show(moved = true) {
  leave.abort();
  leave = new AbortController();
  const asked = read(location.hash);
  const [view, title, name] = choose(asked);
  document.title = `${title} – Plainfold`;
  for (const one of document.querySelectorAll('nav [data-view]')) setAttribute(one, 'aria-current', one.dataset.view === name ? 'page' : null);
  main.replaceChildren();
  asksForToken = false;
  forget.hidden = !hasToken();
  if (view) {
    try {
      refresh = view(main, { signal: leave.signal, parts: asked.parts.slice(1), parameters: asked.parameters, go });
    } catch (error) {
      main.replaceChildren(h('h1', { tabindex: '-1' }, title), trouble(error));
    }
  } else {
    main.append(h('h1', { tabindex: '-1' }, title), h('p', null, 'The address names no view. ', h('a', { href: '#/' }, 'Show the overview'), '.'));
  }
  if (moved) {
    window.scrollTo(0, 0);
    (main.querySelector('h1') ?? main).focus({ preventScroll: true });
  }
}

function askForToken() {
  if (asksForToken) return;
  leave.abort();
  asksForToken = true;
  forget.hidden = true;
  const form = tokenForm(() => {
    show();
    events.restart();
  });
  main.replaceChildren(form.element);
  form.focus();
}

const link = document.getElementById('link');

agent.addEventListener('there', () => setAttribute(link, 'data-level', setText(link, '')));
agent.addEventListener('away', () => {
  link.dataset.level = 'bad';
  if (!link.textContent) setText(link, `The agent does not answer since ${clock(Date.now())}. What is shown is from before.`);
});
agent.addEventListener('token', askForToken);
forget.addEventListener('click', () => {
  setToken(null);
  events.restart();
  show();
});
document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener('hashchange', () => show());
// A view that failed while the agent was away asks again as soon as it is back.
events.addEventListener('change', () => {
  if (events.state.word === 'connected' && link.textContent) refresh();
});
show(false);
events.follow();
