// A refusal of a request: a status, and CouchDB's two words for it.

export class Refusal extends Error {
  /** `error` is CouchDB's name for it (`not_found`), `reason` tells people what is wrong and what to do. */
  constructor(status, error, reason, headers = {}) {
    super(reason);
    this.status = status;
    this.error = error;
    this.headers = headers;
  }
}

export const badRequest = (reason) => new Refusal(400, 'bad_request', reason);

export const missing = (reason) => new Refusal(404, 'not_found', reason);

/** The answer to an unexpected error. RxDB's longer texts contain documents, so only its code is repeated. */
export function unexpected(error, doing) {
  if (error instanceof Refusal) return error;
  const said = String(error?.code ?? error?.message ?? error)
    .split('\n', 1)[0]
    .slice(0, 200);
  return new Refusal(500, 'storage_error', `${doing}: ${said}`);
}
