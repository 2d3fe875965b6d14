// An answer to a client, sent no faster than the client reads it. It knows no RxDB.

/** The client has disconnected, or was disconnected because it read nothing for too long. */
export class ClientGone extends Error {}

export class Answer {
  #response;
  #stallTimeout;

  /** `stallTimeout`: the number of milliseconds without a byte read after which a client is disconnected. */
  constructor(response, stallTimeout) {
    this.#response = response;
    this.#stallTimeout = stallTimeout;
    // `write` reports a broken connection; without a listener it would end the application.
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

  /** Sends a piece. Resolves when the next one may be sent; rejects with `ClientGone`. */
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

  /** Closes the connection early, so that nobody mistakes the answer for complete. */
  breakOff() {
    this.#response.destroy();
  }
}
