// The table in the README is what happens, fault by fault.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

test("every fault of the plugin is as the README says, and none of them is Plainfold's", async () => {
  const child = spawn(process.execPath, [fileURLToPath(new URL('./faults.mjs', import.meta.url))], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let table = '';
  child.stdout.setEncoding('utf8').on('data', (text) => (table += text));
  assert.equal(await new Promise((resolve) => child.on('close', resolve)), 0);
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const [, told] = readme.match(/<!-- faults -->\n\n([^]*?)\n\n<!-- \/faults -->/);
  assert.equal(table.trim(), told);
});
