// Access control. A token is never repeated, and compared in constant time.

import { createHash, timingSafeEqual } from 'node:crypto';
import { Refusal } from './refusal.js';

/** The minimum length of a token. */
const SHORTEST_TOKEN = 16;

/** Whether only processes of this machine can reach an address. */
export function isLoopback(host) {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

/** Checks the options before anything listens. */
export function checkDoor({ port, host, socketPath, token }) {
  const wrong = (reason) => {
    throw new TypeError(`exposePlainfoldFeed: ${reason}`);
  };
  if ((port === undefined) === (socketPath === undefined)) wrong('give either port or socketPath');
  if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port < 65536))
    wrong('port must be a whole number below 65536; 0 is any free one');
  if (socketPath !== undefined && (typeof socketPath !== 'string' || socketPath === ''))
    wrong('socketPath must be a path');
  if (token !== undefined && (typeof token !== 'string' || token.length < SHORTEST_TOKEN))
    wrong(`token must be a text of at least ${SHORTEST_TOKEN} characters`);
  if (port !== undefined && !isLoopback(host) && token === undefined)
    wrong(
      `everybody who can connect to ${host} could read everything: give a token, or leave host out to listen on this machine only`,
    );
}

/** A function that refuses requests without the token, if there is one. */
export function guard({ token, socketPath }) {
  if (token === undefined) {
    return (request) => {
      // A web page may make its own name resolve to this machine. Its requests then use that name.
      if (socketPath === undefined && !isLoopback(hostOf(request.header('host')))) {
        throw new Refusal(403, 'forbidden', "without a token only requests to this machine's own name are answered");
      }
    };
  }
  const digest = (text) => createHash('sha256').update(text).digest();
  const expected = digest(token);
  return (request) => {
    if (!timingSafeEqual(digest(shown(request.header('authorization'))), expected)) {
      const reason = 'the token is wrong or missing: it is the password of any user, or a bearer token';
      throw new Refusal(401, 'unauthorized', reason, { 'www-authenticate': 'Basic realm="plainfold"' });
    }
  };
}

function hostOf(header = '') {
  return header
    .replace(/:\d+$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .toLowerCase();
}

function shown(header = '') {
  const [scheme, value = ''] = header.split(' ', 2);
  if (/^bearer$/i.test(scheme)) return value;
  if (!/^basic$/i.test(scheme)) return '';
  const pair = Buffer.from(value, 'base64').toString();
  return pair.slice(pair.indexOf(':') + 1);
}
