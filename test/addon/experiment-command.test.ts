// The command of the experiments refuses what it cannot run in one line.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, it } from 'vitest';

const command = join(import.meta.dirname, '../../dist/experiments/main.js');

it.each([
  [['foo'], /^experiment: Expected one of unified-reward-think, jrm, r3v, r3v-few for `name` but received "foo"\./],
  [['jrm', '--seeds', 'a,b'], /^experiment: Expected distinct integers .* for `--seeds` but received "a,b"\./],
  [['jrm', '--seeds', '1,,2'], /received "1,,2"/],
  [['jrm', '--seeds', '1,1'], /received "1,1"/],
  [['jrm', '--threads', 'x'], /^experiment: Expected an integer >= 1 for `--threads` but received "x"\./],
  [['jrm', '--threads', '0'], /received "0"/],
])('refuses %j', (args, message) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [command, ...args], { encoding: 'utf8' });
  expect([status, stdout]).toEqual([1, '']);
  expect(stderr).toMatch(message);
  expect(stderr).toMatch(/^[^\n]+\[invalid_argument\]\n$/);
});
