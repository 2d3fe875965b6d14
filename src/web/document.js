// The view of a document: its body as a tree, and its attachments. What a document contains is only ever
// text, or the bytes of an image or a PDF file; everything else is downloaded.

import { answer, hasToken, path } from './api.js';
import { documentAt } from './documents.js';
import { fill, h } from './dom.js';
import { isJson, jsonTree } from './json.js';
import { factList } from './mirror.js';
import { again, link, notice, trail, trouble } from './view.js';
import { bytes, count, line, marked, plain } from './words.js';

const MIB = 1 << 20;

/** A body up to this size is shown at once; one up to the other when it is asked for. */
const AT_ONCE = 8 * MIB;
const LARGEST_BODY = 48 * MIB;

/** The most bytes of an attachment that is shown. */
const LARGEST_SHOWN = 64 * MIB;

/** The characters of a body that is not JSON. */
const TEXT = 50_000;

/** The types that are shown. An SVG file can contain scripts, so that it is not one of them. */
const IMAGES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif'];
const PDF = 'application/pdf';

const typeOf = (text) => String(text ?? '').split(';')[0].trim().toLowerCase();

/** The bytes of an answer; an error if there are more than `most`. */
async function bounded(response, most) {
  const parts = [];
  let size = 0;
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > most) {
      await reader.cancel();
      throw new Error(`It is larger than ${bytes(most)}. Download it.`);
    }
    parts.push(value);
  }
  return new Blob(parts);
}

/** Hands bytes to the browser's downloads under a name. */
function save(blob, name) {
  const url = URL.createObjectURL(new Blob([blob], { type: 'application/octet-stream' }));
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** A button or link that downloads. Without a token, the browser does it alone, whatever the size. */
function download(where, name, size, label) {
  if (!hasToken()) return h('a', { class: 'button', href: where, download: name, 'aria-label': `Download ${label}` }, 'Download');
  const button = h('button', { type: 'button', 'aria-label': `Download ${label}`, onclick: async () => {
    button.disabled = true;
    try {
      notice(`Downloading ${label} (${bytes(size)})…`, 'busy');
      save(await (await answer(where)).blob(), name);
      notice(`Downloaded ${label}.`);
    } catch (error) {
      notice(`Download: ${line(error.message)}`, 'bad');
    }
    button.disabled = false;
  } }, 'Download');
  return button;
}

/** A name that a file system accepts, without a path. */
const fileName = (name) => line(name).replace(/[/\\:*?"<>|]+/g, '_').replace(/^\.+/, '_').slice(0, 120) || 'file';

async function bodyOf(where, signal) {
  const blob = await bounded(await answer(where, { signal }), LARGEST_BODY);
  const data = new Uint8Array(await blob.arrayBuffer());
  try {
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(data), isText: true };
  } catch {
    return { text: new TextDecoder().decode(data), isText: false };
  }
}

/** The body, as a tree if it is JSON, and otherwise as its first characters. */
function drawn({ text, isText }) {
  if (isText && isJson(text)) return [jsonTree(text)];
  const what = isText ? 'This body is not JSON.' : 'This body is not UTF-8.';
  return [
    h('p', { class: 'trouble', 'data-level': 'warn' }, marked('warn', 'Damaged'), ` ${what} It is shown as text. Run “plainfold verify” to check the mirror.`),
    h('pre', { tabindex: '0', 'aria-label': 'The body as text' }, plain(text.slice(0, TEXT))),
    text.length > TEXT ? h('p', { class: 'note' }, 'The rest is in the download.') : null,
  ];
}

function body(place, where, size, signal) {
  const show = async () => {
    place.replaceChildren(h('p', { class: 'note' }, `Reading ${bytes(size)}…`));
    try {
      place.replaceChildren(...drawn(await bodyOf(where, signal)).filter(Boolean));
    } catch (error) {
      if (!signal.aborted) place.replaceChildren(trouble(error));
    }
  };
  if (size <= AT_ONCE) return show();
  place.replaceChildren(size <= LARGEST_BODY
    ? h('p', null, `The body has ${bytes(size)}. `, h('button', { type: 'button', onclick: show }, 'Show it'))
    : h('p', null, `The body has ${bytes(size)}, which is more than the page shows. Download it.`));
}

/** Shows an image or a PDF file from its bytes. */
async function shown(place, where, one, signal) {
  const response = await answer(where, { signal });
  const type = typeOf(response.headers.get('content-type'));
  if (type !== PDF && !IMAGES.includes(type)) throw new Error(`The agent does not show ${line(type)}. Download it.`);
  const data = await bounded(response, LARGEST_SHOWN);
  if (type === PDF && (await data.slice(0, 5).text()) !== '%PDF-') throw new Error('This is not a PDF file. Download it.');
  const url = URL.createObjectURL(new Blob([data], { type }));
  signal.addEventListener('abort', () => URL.revokeObjectURL(url));
  const name = line(one.name);
  place.replaceChildren(type === PDF
    ? h('iframe', { src: url, title: `The PDF file ${name}`, referrerpolicy: 'no-referrer' })
    : h('img', { src: url, alt: `The image ${name}`, onerror: () => place.replaceChildren(h('p', { class: 'note' }, 'The browser cannot show this image. Download it.')) }));
}

function attachment(where, one, signal) {
  const place = h('div', { class: 'shown' });
  const name = line(one.name);
  const [type, url] = [typeOf(one.content_type), () => where(one.name)];
  const canShow = one.stored && (type === PDF || IMAGES.includes(type)) && one.bytes <= LARGEST_SHOWN;
  const say = (word) => {
    show.textContent = word;
    show.setAttribute('aria-label', `${word} ${name}`);
  };
  const show = h('button', { type: 'button', onclick: async () => {
    if (show.textContent === 'Hide') {
      say('Show');
      return place.replaceChildren();
    }
    say('Hide');
    try {
      await shown(place, url(), one, signal);
    } catch (error) {
      if (!signal.aborted) place.replaceChildren(trouble(error));
    }
  } });
  say('Show');
  let buttons;
  try {
    buttons = one.stored ? [canShow ? show : null, download(url(), fileName(one.name), one.bytes, name)] : [h('span', { class: 'note' }, 'not in the mirror')];
  } catch (error) {
    buttons = [h('span', { class: 'note' }, line(error.message))];
  }
  return h('li', null,
    h('div', { class: 'bar' },
      h('div', null, h('h3', null, h('bdi', null, name)), h('p', { class: 'note' }, h('bdi', null, line(one.content_type ?? 'no type')), one.bytes === null ? '' : `, ${bytes(one.bytes)}`, one.digest ? [', ', h('bdi', null, line(one.digest))] : '')),
      h('div', { class: 'buttons' }, buttons)),
    place);
}

/** Shows the view in `main` until `signal` is aborted. */
export function documentView(main, { signal, parts: [mirror, , collection, id] }) {
  const [error, about, tree, files] = [h('div'), h('div'), h('div'), h('div')];
  const where = (...more) => path(mirror, 'collections', collection, 'documents', id, ...more);
  const section = h('section', { 'aria-labelledby': 'body', hidden: true });
  main.append(
    trail(['Overview', '#/'], [mirror, link('m', mirror)], [line(collection), link('m', mirror, 'c', collection)], ['Documents', link('m', mirror, 'd', collection)], [line(id)]),
    h('h1', { tabindex: '-1', class: 'id' }, h('bdi', null, line(id))),
    error, about, section, files);
  return again(signal, 3_600_000, async () => {
    const one = await documentAt(mirror, collection, id, signal);
    fill(about, JSON.stringify(one), () => [factList([
      ['Revision', line(one.revision ?? 'not known')],
      one.deleted ? ['Deleted', 'at the source; this is its tombstone'] : null,
      ['Folder in the mirror', h('bdi', null, line(one.path))],
      ['Body', bytes(one.bytes)],
      ['Attachments', count(one.attachments.length, 'attachment')],
    ].filter(Boolean))]);
    section.hidden = false;
    fill(section, JSON.stringify(one), () => [
      h('div', { class: 'bar' }, h('h2', { id: 'body' }, 'Body'), download(where('body'), `${fileName(id)}.json`, one.bytes, 'the body')), tree]);
    fill(tree, JSON.stringify(one), () => []);
    if (!tree.firstChild) body(tree, where('body'), one.bytes, signal);
    fill(files, JSON.stringify(one), () => one.attachments.length === 0 ? [] : [h('section', { 'aria-labelledby': 'attachments' },
      h('h2', { id: 'attachments' }, 'Attachments'),
      h('ul', { class: 'attachments' }, one.attachments.map((file) => attachment((name) => where('attachments', name), file, signal))))]);
    fill(error, '', () => []);
  }, (failed) => fill(error, failed.message, () => [trouble(failed)]));
}
