// npx gavel before set-up: npm links what stands in package.json's `bin`, and keeps a link to nothing for good.
import { spawnSync } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';

const root = join(import.meta.dirname, '../..');

it('the command of package.json is in the repository, and runs what the build makes', async () => {
  const { bin, files } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
    bin: { gavel: string };
    files: string[];
  };
  expect(spawnSync('git', ['check-ignore', '-q', bin.gavel], { cwd: root }).status).not.toBe(0);
  expect(files).toContain('bin');
  const folder = await mkdtemp(join(tmpdir(), 'gavel-entry-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  await cp(join(root, 'bin'), join(folder, 'bin'), { recursive: true });
  const run = (): object => spawnSync(process.execPath, [join(folder, bin.gavel), 'a'], { encoding: 'utf8' });
  expect(run()).toMatchObject({
    status: 1,
    stdout: '',
    stderr: expect.stringMatching(/Run `npm run setup` first\. \[binary_missing\]\n$/) as string,
  });
  await mkdir(join(folder, 'dist/cli'), { recursive: true });
  await writeFile(join(folder, 'dist/cli/main.js'), 'console.log(process.argv.slice(2).join());');
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }');
  expect(run()).toMatchObject({ status: 0, stdout: 'a\n', stderr: '' });
});
