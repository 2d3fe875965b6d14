// An answer on its way to a client, sent no faster than the client takes it. It knows no RxDB.

/** The client went away, or has taken nothing for so long that it was sent away. */
export class ClientGone extends Error {}

export class Answer {
  #response;
  #stallTimeout;

  /** `stallTimeout`: after so many milliseconds without taking a byte a client loses its connection. */
  constructor(response, stallTimeout) {
    this.#response = response;
    this.#stallTimeout = stallTimeout;
    // A broken connection is told by `write`; without a listener it would end the application.
    response.on('error', () => {});
  }

  get begun() {
    return this.#response.headersSent;
  }

  json(value, status = 200, headers = {}) {
    const text = JSON.stringify(value) + '\n';
    const length = Buffer.byteLength(text);
    this.#response.writeHead(status, { 'content-type': 'application/json', 'content-length': length, ...headers });
    this.end(text);
  }

  begin(headers = { 'content-type': 'application/json' }) {
    this.#response.writeHead(200, headers);
    this.#response.flushHeaders();
  }

  /** Sends a piece. Resolves when the next one may come; rejects with `ClientGone`. */
  async write(piece) {
    const response = this.#response;
    if (response.destroyed) throw new ClientGone();
    if (response.write(piece)) return;
    await new Promise((resolve, reject) => {
      const settle = (how, value) => () => {
        clearTimeout(timer);
        response.off('drain', taken).off('close', gone);
        how(value);
      };
      const taken = settle(resolve);
      const gone = settle(reject, new ClientGone());
      const timer = setTimeout(() => response.destroy(), this.#stallTimeout);
      response.once('drain', taken).once('close', gone);
    });
  }

  end(piece) {
    this.#response.setTimeout(this.#stallTimeout, () => this.breakOff());
    this.#response.end(piece);
  }

  /** Breaks the connection off, so that nobody takes what was sent for the whole. */
  breakOff() {
    this.#response.destroy();
  }
}
