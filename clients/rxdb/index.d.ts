import type { RxDatabase } from 'rxdb';

/** What is exposed, how, and for which clients. */
export interface PlainfoldFeedOptions {
  /** The running database. The application closes it; its feed closes with it. */
  database: RxDatabase<any, any, any, any>;
  /**
   * The TCP port to listen on; 0 is any free one, which the feed's `port` and `url` show. Give this or `socketPath`.
   */
  port?: number;
  /** The address to listen on [default: 127.0.0.1]. An address that other machines reach needs a `token`. */
  host?: string;
  /** A Unix socket to listen on, with mode 0600. Give this or `port`. */
  socketPath?: string;
  /** At least 16 characters that every request must contain: as a bearer token, or as the password of any user. */
  token?: string;
  /** The names of the collections to expose [default: all, including those added later]. */
  collections?: string[];
  /** Whether documents may be restored into the database [default: false]. */
  write?: boolean;
  /**
   * The milliseconds after which a client that reads nothing, or has not finished a request, is disconnected [default:
   * 300000].
   */
  stallTimeout?: number;
  /**
   * The longest request that restores, in bytes [default: 134217728]. It contains a document with its attachments in
   * base64. Requests that are longer together wait for one another.
   */
  maxRequestBytes?: number;
}

/** A feed that is being served. */
export interface PlainfoldFeed {
  /** The source for `plainfold mirror`: `http://…`, or `http+unix://…` on a Unix socket. */
  readonly url: string;
  /** The TCP port; `undefined` on a Unix socket. */
  readonly port: number | undefined;
  /** The Unix socket, if there is one. */
  readonly socketPath: string | undefined;
  /** Stops serving: ends every connection, and leaves the database as it is. */
  close(): Promise<void>;
}

/**
 * Serves a running RxDatabase in the part of the CouchDB protocol that Plainfold uses: each collection as a database.
 * Resolves when requests are answered. Rejects with a `TypeError` if the options contradict one another, and with
 * Node.js' own error if the port or socket cannot be opened.
 */
export function exposePlainfoldFeed(options: PlainfoldFeedOptions): Promise<PlainfoldFeed>;
