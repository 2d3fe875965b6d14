// Verification as a job of the agent: a button, and its progress.

import { Problem, ask, order, path } from './api.js';
import { fill, h } from './dom.js';
import { notice, orderButton } from './view.js';
import { line, marked, number, time } from './words.js';

const LEVELS = { running: 'busy', done: 'well', failed: 'bad', cancelled: 'idle' };

/** Shows the newest job of a mirror in `place`. If the agent has no jobs, it shows nothing. */
export function jobs(place, name, signal) {
  let known = true;
  const draw = (job) => {
    const { progress } = job ?? {};
    const running = job?.state === 'running';
    const start = orderButton('Verify', path(name, 'verify'), () => `The verification of ${name} has started.`, update);
    const stop = job && orderButton('Cancel', path(name, 'jobs', String(job.id), 'cancel'), () => 'The job is cancelled.', update);
    return [h('section', { class: 'panel', 'aria-labelledby': 'jobs' },
      h('div', { class: 'bar' }, h('h2', { id: 'jobs' }, 'Verification'), running ? stop : start),
      job ? h('p', null, marked(LEVELS[job.state] ?? 'idle', `${line(job.kind)}: ${line(job.state)}`), ' ', job.phase && running ? line(job.phase) : '', ' ',
        job.ended_at ? ['ended ', time(job.ended_at)] : ['started ', time(job.started_at)]) : h('p', { class: 'note' }, 'A verification reads every file of the mirror and compares it with its checksum.'),
      running && progress?.total ? h('label', { class: 'progress' }, `${number(progress.done)} of ${number(progress.total)} ${line(progress.unit ?? '')} `,
        h('progress', { max: progress.total, value: progress.done })) : null,
      job && !running && job.outcome ? h('pre', { tabindex: '0', 'aria-label': 'The outcome' }, line(typeof job.outcome === 'string' ? job.outcome : JSON.stringify(job.outcome))) : null)];
  };
  async function update() {
    if (!known) return;
    try {
      const { jobs: all } = await ask(path(name, 'jobs'), { signal });
      const job = all.at(-1) ?? null;
      fill(place, JSON.stringify(job), () => draw(job));
    } catch (error) {
      if (error instanceof Problem && (error.status === 404 || error.status === 405)) known = false;
      else if (error instanceof Problem && error.status > 0) notice(line(error.message), 'bad');
    }
  }
  return { update };
}
