// Elements made of data. Text is set as text and never becomes markup: nothing here reads HTML.

const SVG = 'http://www.w3.org/2000/svg';

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An element with attributes, listeners (`onclick`) and children. */
export const h = (name, properties, ...children) =>
  filled(document.createElement(name), properties, children);

/** The same of SVG. */
export const s = (name, properties, ...children) =>
  filled(document.createElementNS(SVG, name), properties, children);

/** Sets a text, if it is another one: a live region speaks only of what changes. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets or removes an attribute, if it is another one. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

const nameOf = (element) => element.getAttribute('aria-label') ?? element.textContent;

/**
 * Replaces the children only if `key` differs from the last one, so that focus and selection stay. What has the
 * focus is found again by its name.
 */
export function fill(element, key, children) {
  if (element.filledWith === key) return;
  element.filledWith = key;
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  element.replaceChildren(...children().flat().filter(Boolean));
  if (!focused || element === focused) return;
  refocus(element, focused);
}

/** Gives the focus to the element that has taken the place of another one: it has the same name. */
export function refocus(root, lost) {
  const name = nameOf(lost);
  [...root.querySelectorAll(lost.tagName)].find((one) => nameOf(one) === name)?.focus({ preventScroll: true });
}

/**
 * Shows a list of items as children that stay the same elements while their keys do. `make` returns
 * `{ element, update }`.
 */
export function keyed(parent, items, keyOf, make) {
  const before = parent.kept ?? new Map();
  const rows = new Map();
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    if (rows.has(key)) continue;
    const row = before.get(key) ?? make(item);
    rows.set(key, row);
    row.update(item);
    if (row.element === place) place = place.nextSibling;
    else parent.insertBefore(row.element, place);
  }
  for (const [key, row] of before) if (!rows.has(key)) row.element.remove();
  parent.kept = rows;
  if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
}

let numbers = 0;

/** An id that no other element has. */
export const uniqueId = (stem) => `${stem}-${(numbers += 1)}`;

/** A text field with its label. */
export function field(label, properties, tag = 'input', ...children) {
  const id = uniqueId('field');
  return h('div', { class: 'field' }, h('label', { for: id }, label), h(tag, { id, ...properties }, ...children));
}
