// A parsed request: its path, its parameters, its body. It knows no RxDB.

import { Refusal, badRequest } from './refusal.js';

export class Request {
  #request;
  #query;

  constructor(request) {
    this.#request = request;
    const [path] = request.url.split('?', 1);
    try {
      this.path = path.split('/').slice(1).map(decodeURIComponent);
    } catch {
      throw badRequest('the path is not percent-encoded UTF-8');
    }
    if (this.path.at(-1) === '') this.path.pop();
    this.#query = new URLSearchParams(request.url.slice(path.length));
  }

  get method() {
    return this.#request.method;
  }

  header(name) {
    return this.#request.headers[name];
  }

  /** The length of the body; `undefined` if the client does not declare it. */
  get length() {
    const chunked = this.header('transfer-encoding') !== undefined;
    return chunked ? undefined : Number(this.header('content-length') ?? 0);
  }

  text(name) {
    return this.#query.get(name) ?? undefined;
  }

  flag(name) {
    return this.#query.get(name) === 'true';
  }

  number(name, otherwise) {
    const text = this.#query.get(name);
    if (text === null) return otherwise;
    if (!/^\d+$/.test(text)) throw badRequest(`${name} must be a number, not ${text.slice(0, 20)}`);
    return Number(text);
  }

  /** A JSON value in the query, such as `startkey`. */
  value(name) {
    const text = this.#query.get(name);
    if (text === null) return undefined;
    try {
      return JSON.parse(text);
    } catch {
      throw badRequest(`${name} is not JSON`);
    }
  }

  /** The body, which must be a JSON object with a limited number of bytes. */
  async object(most) {
    // A web page can send other types to this port without permission, but not this one.
    if (!/^application\/json\b/i.test(this.header('content-type') ?? '')) {
      throw new Refusal(415, 'bad_content_type', 'Content-Type must be application/json');
    }
    const pieces = [];
    let length = 0;
    for await (const piece of this.#request) {
      length += piece.length;
      // It is still read to its end: a client that is sending would not receive the answer.
      if (length > most) pieces.length = 0;
      else pieces.push(piece);
    }
    if (length > most)
      throw new Refusal(413, 'too_large', `the request is longer than ${most} bytes: see maxRequestBytes`);
    let value;
    try {
      value = JSON.parse(Buffer.concat(pieces).toString());
    } catch {
      throw badRequest('invalid UTF-8 JSON');
    }
    if (value === null || typeof value !== 'object' || Array.isArray(value))
      throw badRequest('Request body must be a JSON object');
    return value;
  }
}
