// Requests to the agent, the token, and errors as the agent words them.

const KEY = 'plainfold-token';

/** Says `token` when the agent wants one, `there` when it answers, and `away` when it does not. */
export const agent = new EventTarget();

const say = (name) => agent.dispatchEvent(new Event(name));

function kept() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

let token = kept();

/** Whether a token is kept for this tab. */
export const hasToken = () => Boolean(token);

/** Keeps a token until the tab is closed, or forgets it. */
export function setToken(text) {
  token = text || null;
  try {
    if (token) sessionStorage.setItem(KEY, token);
    else sessionStorage.removeItem(KEY);
  } catch {
    // Then it lasts until the page is reloaded.
  }
}

/** An error: what happened, and what to do. `status` is 0 if the agent does not answer. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail);
    this.status = status;
    this.kind = String(document.type ?? '').replace('urn:plainfold:problem:', '');
    this.mirror = document.mirror ?? null;
  }
}

/** A path below `/v1/mirrors`, with each part encoded: `path('books', 'collections', 'a/b')`. */
export function path(...parts) {
  // Browsers take these for steps in the path, also if they are encoded.
  const step = parts.find((part) => part === '.' || part === '..');
  if (step) throw new Problem(400, { detail: `A browser cannot ask for a name that is “${step}”. Read the file on disk instead.` });
  return `/v1/mirrors/${parts.map(encodeURIComponent).join('/')}`;
}

/** A query of the parameters that have a value. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== '');
  return given.length > 0 ? `?${new URLSearchParams(given)}` : '';
}

/** An answer of the agent with a status of success. */
export async function answer(where, { method = 'GET', headers = {}, signal, body } = {}) {
  const sent = { ...headers };
  const used = token;
  if (used) sent.Authorization = `Bearer ${used}`;
  let response;
  try {
    response = await fetch(where, { method, headers: sent, signal, body, cache: 'no-store', credentials: 'omit', redirect: 'error' });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    say('away');
    throw new Problem(0, { detail: 'The agent does not answer. The page asks again by itself.' });
  }
  say('there');
  if (response.ok) return response;
  const document = await response.json().catch(() => ({ detail: `The agent answered with status ${response.status}.` }));
  // A token that was replaced meanwhile is not asked for again.
  if (response.status === 401 && used === token) say('token');
  throw new Problem(response.status, document);
}

/** An answer as JSON. */
export const ask = async (where, options) => (await answer(where, options)).json();

/** Gives an order. */
export const order = (where, options) => ask(where, { method: 'POST', ...options });
