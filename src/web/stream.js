// One stream of write events that resumes after every interruption, and what the page has seen of it.

import { Problem, agent, answer } from './api.js';

/** The most events that are kept for the list. */
const KEPT = 500;

/** The length of a bucket of the rate, in milliseconds, and the number of buckets. */
export const BUCKET = 5000;
export const BUCKETS = 120;

/** The time without a sign of life after which a stream counts as dead. The agent sends one every 15 s. */
const SILENCE = 45_000;

/** The longest line of a stream, in characters. No event is as long. */
const LONGEST = 4 << 20;

/** The pauses before a new attempt, in milliseconds. */
const PAUSES = [1000, 2000, 3000, 5000];

/** The most notices that are kept. */
const NOTICES = 5;

/** The number of the last event of each mirror, of a position such as `books:12,loans:7`. */
function places(position) {
  const pairs = position ? position.split(',').map((one) => one.split(':')) : [];
  return new Map(pairs.map(([name, number]) => [name, Number(number)]));
}

/** The events of a response of Server-Sent Events. */
async function* received(response, alive) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  let event = {};
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    text += value;
    const lines = text.split('\n');
    text = lines.pop();
    if (text.length > LONGEST) throw new Problem(0, { detail: 'An event is too long.' });
    for (const line of lines) {
      const at = line.indexOf(':');
      if (line === '' || line === '\r') {
        if (event.data !== undefined) yield event;
        event = {};
      } else if (at > 0) {
        event[line.slice(0, at)] = line.slice(at + 1).replace(/^ /, '');
      }
    }
  }
}

/** The write events of all mirrors since the page was opened. Says `change` at most four times a second. */
class WriteEvents extends EventTarget {
  opened = Date.now();
  /** The newest events, the newest one last. */
  list = [];
  total = 0;
  /** `{ word, detail, at, retryAt }`: what the connection does. */
  state = { word: 'connecting', at: Date.now() };
  /** `{ name, of, said, at }`: notices, such as about events that are lost or late. */
  notices = [];
  /** Where the next request resumes. */
  #last = null;
  #rates = new Map();
  /** The highest number of an event of each mirror that was taken. */
  #numbers = new Map();
  /** Where this request is in each mirror. The agent never sends an event before it, unless another mirror has the name. */
  #here = new Map();
  #wake = null;
  #stop = null;
  #announced = false;
  #restarts = 0;

  /** Where the stream resumes, in words: `after event 12 of books`; empty before the first event. */
  get place() {
    if (!this.#last) return '';
    const all = this.#last.split(',');
    const [name, number] = all[0].split(':');
    if (all.length > 3) return `where each of ${all.length} mirrors was`;
    return all.length === 1 && number ? `after event ${number} of ${name}` : `after the events ${all.join(', ')}`;
  }

  /** Follows for as long as the page lives. */
  async follow() {
    for (let attempt = 0; ; attempt += 1) {
      let said = 'The agent has ended the stream.';
      let isRefused = false;
      try {
        await this.#read(() => { attempt = 0; });
      } catch (error) {
        if (error.status === 404) return this.#be('unsupported', 'This agent has no stream of all mirrors.');
        isRefused = error.status === 401;
        said = error.status > 0 ? error.message : 'The agent does not answer.';
      }
      const pause = PAUSES[Math.min(attempt, PAUSES.length - 1)];
      this.#be('away', said, Date.now() + pause);
      await new Promise((resolve) => {
        this.#wake = resolve;
        // Without a token, asking again is of no use.
        if (!isRefused) setTimeout(resolve, pause);
      });
    }
  }

  /** Begins a new request, with the token of now. */
  restart() {
    this.#stop?.abort();
    this.hurry();
  }

  /** Tries again now. */
  hurry() {
    this.#wake?.();
  }

  /** The changes in each bucket of the last minutes, the oldest one first, of one mirror or of all. */
  rate(mirror) {
    const buckets = this.#rates.get(mirror ?? '');
    const now = Math.floor(Date.now() / BUCKET);
    const first = Math.max(now - BUCKETS + 1, Math.floor(this.opened / BUCKET));
    return Array.from({ length: now - first + 1 }, (_, at) => {
      const bucket = first + at;
      return buckets?.at[bucket % BUCKETS] === bucket ? buckets.counts[bucket % BUCKETS] : 0;
    });
  }

  async #read(connected) {
    const stop = (this.#stop = new AbortController());
    let heard = Date.now();
    const watch = setInterval(() => {
      if (Date.now() - heard > SILENCE) stop.abort();
    }, 5000);
    try {
      const headers = { Accept: 'text/event-stream' };
      if (this.#last) headers['Last-Event-ID'] = this.#last;
      this.#here = places(this.#last);
      const response = await answer('/v1/events', { headers, signal: stop.signal });
      connected();
      this.#restarts += 1;
      const resumed = this.#restarts > 1;
      const where = this.place || 'with the next event';
      this.#be('connected', resumed ? `Connected again. The events resumed ${where}.` : '');
      for await (const event of received(response, () => { heard = Date.now(); })) this.#take(event);
    } catch (error) {
      if (error instanceof Problem) throw error;
      throw new Problem(0, { detail: 'The stream broke off.' });
    } finally {
      clearInterval(watch);
      stop.abort();
    }
  }

  #take({ id, event, data }) {
    if (id) this.#last = id;
    let read;
    try {
      read = JSON.parse(data);
    } catch {
      return;
    }
    if (event === 'resume') return this.#resume(read.resume);
    if (event !== 'written' && event !== 'deleted') return this.#note(event, read);
    this.#reach(read.mirror, read.event - 1);
    this.#here.set(read.mirror, read.event);
    // After an interruption, some events may come twice. The numbers of a mirror increase.
    if (read.event <= (this.#numbers.get(read.mirror) ?? 0)) return;
    this.#numbers.set(read.mirror, read.event);
    this.total += 1;
    this.list.push({ ...read, number: this.total });
    if (this.list.length > KEPT * 2) this.list = this.list.slice(-KEPT);
    const bucket = Math.floor(Date.now() / BUCKET);
    for (const name of ['', read.mirror]) {
      let rate = this.#rates.get(name);
      if (!rate) this.#rates.set(name, (rate = { at: new Float64Array(BUCKETS), counts: new Uint32Array(BUCKETS) }));
      const place = bucket % BUCKETS;
      if (rate.at[place] !== bucket) [rate.at[place], rate.counts[place]] = [bucket, 0];
      rate.counts[place] += 1;
    }
    this.#changed();
  }

  /** The agent says where the stream is. */
  #resume(position) {
    this.#last = position;
    for (const [name, number] of places(position)) {
      this.#reach(name, number);
      this.#here.set(name, number);
    }
  }

  /** A mirror that goes back to a number is another one, and counts from the beginning. */
  #reach(name, number) {
    if (number >= (this.#here.get(name) ?? 0)) return;
    this.#numbers.set(name, number);
    this.#note('replaced', { mirror: name });
  }

  #note(name, said) {
    const of = said?.mirror ?? '';
    // A mirror says again and again how far it is; the newest of these notices is enough.
    const before = name === 'passed' ? this.notices.filter((one) => one.name !== name || one.of !== of) : this.notices;
    this.notices = [...before, { name, of, said, at: Date.now() }].slice(-NOTICES);
    this.#changed();
  }

  #be(word, detail, retryAt) {
    this.state = { word, detail, retryAt, at: Date.now() };
    this.#changed();
  }

  #changed() {
    if (this.#announced) return;
    this.#announced = true;
    setTimeout(() => {
      this.#announced = false;
      this.dispatchEvent(new Event('change'));
    }, 250);
  }
}

/** The stream of this page. */
export const events = new WriteEvents();

agent.addEventListener('there', () => {
  if (events.state.word === 'away' && events.state.detail === 'The agent does not answer.') events.hurry();
});
