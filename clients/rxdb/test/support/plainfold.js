// The real program: which one it is, and how it is run.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { after } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

const root = fileURLToPath(new URL('../../../..', import.meta.url));

/** How long anything may take before a test fails. */
export const DEADLINE = 60_000;

export function program() {
  const built = ['debug', 'release'].map((kind) => join(root, 'target', kind, 'plainfold'));
  const path = process.env.PLAINFOLD ?? built.find(existsSync);
  if (!path) throw new Error('there is no plainfold: build it with `cargo build`, or name it in PLAINFOLD');
  return path;
}

/** An empty directory that is gone after the tests. */
export function place() {
  const path = mkdtempSync(join(tmpdir(), 'plainfold-rxdb-'));
  after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Runs the program to its end. */
export async function plainfold(args, { password } = {}) {
  const passwords = { PLAINFOLD_SOURCE_PASSWORD: password, PLAINFOLD_TARGET_PASSWORD: password };
  const env = { ...process.env, ...(password && passwords) };
  const child = spawn(program(), args, { stdio: ['ignore', 'pipe', 'pipe'], env, timeout: DEADLINE });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
  const code = await new Promise((resolve) => child.on('close', resolve));
  return { code, stdout, stderr };
}

/** Mirrors once; fails unless the program ends well. */
export async function mirror(url, directory, ...more) {
  const outcome = await plainfold(['mirror', url, directory, ...more]);
  if (outcome.code !== 0) throw new Error(`mirror ended with ${outcome.code}: ${outcome.stderr}`);
  return outcome;
}

/** What `mirror` says it did: `{ written, deleted, unchanged, attachments, failures }`. */
export function counts({ stdout }) {
  const line = stdout.match(/(\d+) documents? written, (\d+) deleted, (\d+) unchanged, (\d+) attachments?/);
  const [written, deleted, unchanged, attachments] = line.slice(1).map(Number);
  const failures = Number(stdout.match(/(\d+) documents? failed/)?.[1] ?? 0);
  return { written, deleted, unchanged, attachments, failures };
}

/** A mirror that follows, and its write events as they come. */
export class Live {
  #mirror;
  #tail;
  #events = [];
  #heard = () => {};
  stderr = '';

  static async open(url, directory, ...more) {
    const live = new Live();
    await live.#start(url, directory, more);
    return live;
  }

  /** The same for a test, stopped after it. */
  static async start(...args) {
    const live = await Live.open(...args);
    after(() => live.stop());
    return live;
  }

  async #start(url, directory, more) {
    const stdio = ['ignore', 'ignore', 'pipe'];
    this.#mirror = spawn(program(), ['mirror', url, directory, '--live', ...more], { stdio });
    this.#mirror.stderr.setEncoding('utf8').on('data', (text) => (this.stderr += text));
    await until(async () => (await status(directory))?.caught_up);
    this.#tail = spawn(program(), ['tail', directory, '--since', '0'], { stdio: ['ignore', 'pipe', 'inherit'] });
    createInterface({ input: this.#tail.stdout }).on('line', (line) => {
      this.#events.push(JSON.parse(line));
      this.#heard();
    });
  }

  /** The first event that fits, waited for. */
  async event(fits) {
    const deadline = AbortSignal.timeout(DEADLINE);
    for (;;) {
      const found = this.#events.find(fits);
      if (found) return found;
      await new Promise((resolve, reject) => {
        this.#heard = resolve;
        deadline.onabort = () =>
          reject(new Error(`no such event came: ${JSON.stringify(this.#events)}; ${this.stderr}`));
      });
    }
  }

  async stop() {
    for (const child of [this.#tail, this.#mirror]) {
      if (child?.exitCode !== null || child.signalCode !== null) continue;
      const ended = new Promise((resolve) => child.on('exit', resolve));
      child.kill('SIGTERM');
      await ended;
    }
    return this.#mirror.exitCode;
  }
}

export async function status(directory) {
  const { code, stdout } = await plainfold(['status', directory, '--format', 'json']);
  return code === 0 ? JSON.parse(stdout) : undefined;
}

/** Repeats a request until the answer is truthy, for values that send no event. */
export async function until(ask) {
  const deadline = Date.now() + DEADLINE;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`it never came to be: ${ask}`);
    await pause(20);
  }
}

export const body = (directory, ...parts) => JSON.parse(text(directory, ...parts));

/** The text of a `document.json`, without the newline after it. */
export const text = (...parts) => readFileSync(join(...parts, 'document.json'), 'utf8').trimEnd();

/** The documents' folders of a collection. */
export const folders = (...parts) =>
  readdirSync(join(...parts), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .sort();
