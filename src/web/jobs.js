// Verification and repair as jobs of the agent: buttons, progress, and what was found.

import { Problem, ask, order, path } from './api.js';
import { fill, h } from './dom.js';
import { confirmed, notice, orderButton, table } from './view.js';
import { bytes, count, line, marked, number, time } from './words.js';

/** The problems that are shown. */
const SHOWN = 20;

const KINDS = { verify: 'Verification', repair: 'Repair' };

/** How a job stands: `[level, words]`. */
function standing({ kind, state, outcome, error }) {
  const name = KINDS[kind] ?? line(kind);
  if (state === 'running') return ['busy', `${name} is running`];
  if (state === 'failed') return ['bad', `${name} failed: ${line(error ?? 'the agent gives no reason')}`];
  if (state === 'cancelled') return ['idle', `${name} was cancelled`];
  if (outcome?.problem_count > 0) return ['bad', `${name} found ${count(outcome.problem_count, 'problem')}`];
  return ['well', `${name} found the mirror intact`];
}

function report({ documents, attachments, bytes: size, repaired, not_repaired: left, repairs, problems, problem_count: all }) {
  const parts = [`${count(documents, 'document')} and ${count(attachments, 'attachment')} were read, ${bytes(size)}`];
  if (repaired > 0) parts.push(`${count(repaired, 'document')} repaired`);
  if (left > 0) parts.push(`${count(left, 'document')} not repaired`);
  const lines = [
    ...problems.map(({ path: where, reason }) => [where, reason]),
    ...repairs.filter(({ result }) => result === 'not-repaired').map(({ collection, id, reason }) => [`${collection}: ${id}`, reason ?? 'not repaired']),
  ];
  const cells = lines.slice(0, SHOWN).map(([where, what]) => h('tr', { role: 'row' },
    h('th', { scope: 'row', role: 'rowheader', class: 'path' }, h('bdi', null, line(where))),
    h('td', { role: 'cell', class: 'words', 'data-label': 'Problem' }, line(what))));
  const rest = Math.max(all, lines.length) - cells.length;
  return [
    h('p', { class: 'note' }, `${parts.join('; ')}.`),
    cells.length > 0 ? table('Problems that were found', [['Where'], ['Problem']], h('tbody', { role: 'rowgroup' }, cells), 'stacks') : null,
    rest > 0 ? h('p', { class: 'note' }, `${count(rest, 'more problem')}: “plainfold verify” lists all of them.`) : null,
  ];
}

/** Asks before a repair, which replaces files of the mirror. */
async function askToRepair(name, done) {
  const sure = await confirmed({
    title: `Repair ${name}?`,
    text: [h('p', null, 'A repair reads every file of the mirror ', h('strong', null, name), ' and fetches each damaged document from the source again. What somebody else changed in the mirror is replaced.')],
    confirm: 'Repair',
  });
  if (!sure) return;
  try {
    await order(path(name, 'repair'));
    notice(`The repair of ${name} has started.`);
  } catch (error) {
    notice(`Repair: ${line(error.message)}`, 'bad');
  }
  done();
}

/** Shows the newest job of a mirror in `place`. If the agent has no jobs, it shows nothing. */
export function jobs(place, name, signal) {
  const draw = (job) => {
    const running = job?.state === 'running';
    const verify = orderButton('Verify', path(name, 'verify'), () => `The verification of ${name} has started.`, update);
    const repair = h('button', { type: 'button', onclick: () => askToRepair(name, update) }, 'Repair…');
    const cancel = job && orderButton('Cancel the job', path(name, 'jobs', String(job.job), 'cancel'), () => 'The job ends between two documents.', update);
    const { progress } = job ?? {};
    return [h('section', { class: 'panel', 'aria-labelledby': 'jobs' },
      h('div', { class: 'bar' }, h('h2', { id: 'jobs' }, 'Verification'), h('div', { class: 'buttons' }, running ? cancel : [verify, repair])),
      job ? h('p', null, marked(...standing(job)), ' ', running ? ['started ', time(job.started_at)] : ['ended ', time(job.ended_at)])
        : h('p', { class: 'note' }, 'A verification reads every file of the mirror and compares it with its checksum.'),
      running ? h('label', { class: 'progress' }, `${line(job.phase)}: ${number(progress.done)}${progress.total ? ` of ${number(progress.total)}` : ''} ${line(progress.unit)}`,
        h('progress', progress.total ? { max: progress.total, value: Math.min(progress.done, progress.total) } : {})) : null,
      job?.outcome && !running ? report(job.outcome) : null)];
  };
  async function update() {
    try {
      const [job = null] = (await ask(path(name, 'jobs'), { signal })).jobs;
      fill(place, JSON.stringify(job), () => draw(job));
    } catch (error) {
      // A mirror that is not at work has no jobs.
      if (error instanceof Problem && [404, 409].includes(error.status)) fill(place, 'none', () => []);
      else if (error instanceof Problem && error.status > 0) notice(line(error.message), 'bad');
    }
  }
  return { update };
}
