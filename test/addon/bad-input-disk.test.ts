// Folders one may not write to, and disks that are full. What each case checks stands in bad-input.ts.
import { spawnSync } from 'node:child_process';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  command,
  failureOf,
  failureOfCommand,
  withTrained,
  configuration,
  isRoot,
  nobody,
  nobodyCanRun,
  describeMistakes,
} from './bad-input.js';
import { temporaryFolder } from './model-fixture.js';

describeMistakes('disk', [
  {
    what: 'a folder one may not write to',
    impossible: () =>
      isRoot && !nobodyCanRun() ? 'root may write anywhere, and nobody cannot read this folder' : undefined,
    make: async () => {
      const path = await configuration();
      if (isRoot) return failureOfCommand(['train', path], nobody);
      const folder = join(path, '..');
      await chmod(folder, 0o555);
      try {
        return failureOfCommand(['train', path]);
      } finally {
        await chmod(folder, 0o755);
      }
    },
    code: 'permission_denied',
    exitCode: 1,
    expected: /Expected permission to make/,
    received: /run.* received EACCES/,
    advice: /Choose another folder or change its owner or mode/,
  },
  {
    what: 'a folder of something else as the target of a save',
    make: async () => {
      const folder = await temporaryFolder();
      await writeFile(join(folder, 'thesis.txt'), 'precious');
      const failure = await failureOf(() => withTrained((model) => model.save(folder)));
      expect(await readFile(join(folder, 'thesis.txt'), 'utf8')).toBe('precious');
      return failure;
    },
    code: 'invalid_argument',
    expected: /Expected a new folder or one with config\.json for `folder`/,
    received: /which holds other things/,
    advice: /Name another one, or remove it/,
  },
]);

// A disk of its own that is too small for a second checkpoint; mounts of this namespace end with the process.
const fullDisk = `
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
const [command, config] = process.argv.slice(2);
const gavel = (...args) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [command, 'train', config, ...args], { encoding: 'utf8' });
  return { status, stdout, stderr, checkpoints: readdirSync('run/checkpoints').sort() };
};
const full = gavel();
const still = gavel('--resume');
const { status } = spawnSync('mount', ['-o', 'remount,size=64m', process.cwd()]);
console.log(JSON.stringify({ full, still, remounted: status, resumed: gavel('--resume', '--json') }));
`;

describe('a full disk', () => {
  it('at a checkpoint ends the run with disk_full, keeps the one before, and the run resumes from it', async (context) => {
    const config = await configuration({
      stage:
        'recipe: sft\n    data: { path: data.jsonl }\n    options: { steps: 6, batchSize: 2, checkpointEvery: 2, learningRate: 1e-3 }',
    });
    const folder = join(config, '..');
    const disk = join(folder, 'disk');
    await mkdir(disk);
    await writeFile(join(folder, 'full-disk.mjs'), fullDisk);
    const shell =
      'mount -t tmpfs -o size=2600k tmpfs "$1" && cd "$1" && cp ../data.jsonl . && ' +
      'cp ../run.yaml . && exec "$2" ../full-disk.mjs "$3" run.yaml';
    const { status, stdout, stderr } = spawnSync(
      'unshare',
      ['--mount', '--map-root-user', 'sh', '-c', shell, 'sh', disk, process.execPath, command],
      { encoding: 'utf8' },
    );
    if (status !== 0 && /unshare|mount/.test(stderr)) {
      context.skip(`a file system of its own cannot be mounted here: ${stderr.trim()}`);
    }
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const { full, still, remounted, resumed } = JSON.parse(stdout) as Record<
      'full' | 'still' | 'resumed',
      { status: number; stdout: string; stderr: string; checkpoints: string[] }
    > & { remounted: number };
    for (const one of [full, still]) {
      expect(one.status, one.stderr).toBe(1);
      expect(one.stderr).toMatch(/\[disk_full\]\s*$/);
      expect(one.stderr).toMatch(/Expected to write .* but received: No space left on device/);
      expect(one.stderr).toMatch(/Free (some )?space .*untouched/);
      expect(one.checkpoints).toEqual(['step-000002']);
    }
    expect(remounted).toBe(0);
    expect(resumed.status, resumed.stderr).toBe(0);
    const events = resumed.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { type: string; step?: number });
    // The first step after the checkpoint, not the first of all.
    expect(events.find(({ type }) => type === 'step-end')?.step).toBe(3);
    expect(events.at(-1)?.type).toBe('run-result');
  });

  it('at a save of the API leaves the checkpoint that was there', async () => {
    const folder = join(await temporaryFolder(), 'model');
    await withTrained(async (model) => {
      await model.save(folder);
      const before = await readFile(join(folder, 'model.safetensors'));
      const sinks = model.tensors().map(({ name }) => ({ name, kind: 'value' as const, dtype: 'F32' as const }));
      const failure = await failureOf(() => model.parts.native.saveTensors('/dev/full', new Uint8Array(8), sinks));
      expect(failure.code).toBe('disk_full');
      expect(before.equals(await readFile(join(folder, 'model.safetensors')))).toBe(true);
      await model.load(folder);
    });
  });
});
