// The packed tarball in an empty project, as a dependency's user meets it: no install script, no binary, a typed error
// that names the command, and the command building with nothing but a compiler.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '../..');
const project = mkdtempSync(join(tmpdir(), 'gavel-package-'));
const installed = join(project, 'node_modules/gavel-rl');
let packed: string[];

interface Manifest {
  dependencies: Record<string, string>;
  bin: Record<string, string>;
  scripts: Record<string, string>;
}

function link(target: string, path: string): void {
  mkdirSync(dirname(path), { recursive: true });
  symlinkSync(target, path);
}

/** What `npm install gavel-rl.tgz` leaves behind, with the dependencies this checkout already has: works offline. */
function install(): void {
  const text = execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', project], {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const [pack] = JSON.parse(text) as [{ filename: string; files: { path: string }[] }];
  packed = pack.files.map((file) => file.path);
  mkdirSync(installed, { recursive: true });
  execFileSync('tar', ['-xzf', join(project, pack.filename), '-C', installed, '--strip-components=1']);
  const manifest = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')) as Manifest;
  for (const name of Object.keys(manifest.dependencies)) {
    link(join(root, 'node_modules', name), join(project, 'node_modules', name));
  }
  for (const [name, path] of Object.entries(manifest.bin)) {
    const target = join(installed, path);
    execFileSync('chmod', ['+x', target]);
    link(target, join(project, 'node_modules/.bin', name));
  }
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'guest', private: true, type: 'module' }));
}

function run(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const { GAVEL_NATIVE: _checkout, ...inherited } = process.env;
  const result = spawnSync(program, args, {
    cwd: project,
    encoding: 'utf8',
    env: { ...inherited, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 1 << 26,
  });
  return { status: result.status, stdout: result.stdout, stderr: result.stderr };
}

const evaluate = (code: string) => run(process.execPath, ['--input-type=module', '--eval', code]);

beforeAll(install);
afterAll(() => {
  rmSync(project, { recursive: true, force: true });
});

describe('the tarball', () => {
  it('holds every listed source and what builds it, and no tests or builds of ours', () => {
    const listed = JSON.parse(readFileSync(join(installed, 'native/sources.json'), 'utf8')) as {
      variables: Record<string, string[]>;
    };
    const { core_sources: core = [], binding_sources: binding = [], cuda_sources: cuda = [] } = listed.variables;
    expect(packed).toEqual(expect.arrayContaining([...core, ...binding, ...cuda]));
    expect(packed).toEqual(expect.arrayContaining(['CMakeLists.txt', 'binding.gyp', 'LICENSE', 'dist/index.d.ts']));
    expect(packed.filter((path) => /^(test|native\/test|build|node_modules|runs)\b/.test(path))).toEqual([]);
  });
});

describe('before a binary is there', () => {
  it('importing loads no addon', () => {
    const { status, stdout, stderr } = evaluate(`
      await import('gavel-rl');
      await import('gavel-rl/kernels');
      const { sharedObjects } = process.report.getReport();
      console.log(sharedObjects.filter((path) => path.endsWith('gavel.node')).length);
    `);
    expect({ status, stdout: stdout.trim(), stderr }).toEqual({ status: 0, stdout: '0', stderr: '' });
  });

  it('asking for an engine gives the typed error that names the command', () => {
    const { stdout, stderr } = evaluate(`
      const { createEngine } = await import('gavel-rl');
      try {
        await createEngine({ device: 'cpu' });
      } catch (error) {
        console.log(JSON.stringify({ name: error.name, code: error.code, message: error.message }));
      }
    `);
    expect(stderr).toBe('');
    const error = JSON.parse(stdout) as { name: string; code: string; message: string };
    expect(error).toMatchObject({ name: 'GavelError', code: 'binary_missing' });
    expect(error.message).toContain('npx gavel setup');
    expect(error.message).toContain(join(installed, 'build-plain/gavel.node'));
  });

  it('an unknown builder is refused with the ones there are', () => {
    const { status, stderr } = run('npx', ['--no-install', 'gavel', 'setup', '--builder', 'bazel']);
    expect(status).not.toBe(0);
    expect(stderr).toContain('cmake, gyp, plain');
  });
});

describe('npx gavel setup', () => {
  it('builds with the plain compiler; a second run has nothing to do', () => {
    const first = run('npx', ['--no-install', 'gavel', 'setup', '--builder', 'plain']);
    expect({ status: first.status, stderr: first.stderr }).toMatchObject({ status: 0 });
    expect(existsSync(join(installed, 'build-plain/gavel.node'))).toBe(true);
    const second = run('npx', ['--no-install', 'gavel', 'setup', '--builder', 'plain']);
    expect(second.status).toBe(0);
    expect(second.stdout).toContain('up to date');
  });

  it('leaves an addon that runs, linked to nothing but the C and C++ libraries', () => {
    const { stdout, stderr } = evaluate(`
      const { createEngine } = await import('gavel-rl');
      const engine = await createEngine({ device: 'cpu' });
      await engine[Symbol.asyncDispose]();
      const kernels = await import('gavel-rl/kernels');
      console.log(Object.keys(kernels).length > 0);
    `);
    expect({ stdout: stdout.trim(), stderr }).toEqual({ stdout: 'true', stderr: '' });
    const needed = execFileSync('ldd', [join(installed, 'build-plain/gavel.node')], { encoding: 'utf8' });
    const names = [...needed.matchAll(/^\s*(\S+?)\.so/gm)].map(([, name]) => name?.split('/').at(-1) ?? '');
    const allowed = ['linux-vdso', 'linux-gate', 'libstdc++', 'libm', 'libgcc_s', 'libc', 'libdl', 'libpthread'];
    expect(names.filter((name) => !allowed.includes(name) && !name.startsWith('ld-linux'))).toEqual([]);
  });
});

describe('types', () => {
  it('both entries are typed for a strict consumer', () => {
    writeFileSync(
      join(project, 'consumer.ts'),
      [
        "import { createEngine, GavelError } from 'gavel-rl';",
        "import * as kernels from 'gavel-rl/kernels';",
        "const engine = createEngine({ device: 'cpu' });",
        'export const wrong: number = engine;',
        'export const code: string | undefined = GavelError.is(engine) ? engine.code : undefined;',
        'export const names: string[] = Object.keys(kernels);',
      ].join('\n'),
    );
    const options = [
      '--noEmit',
      '--strict',
      '--module',
      'nodenext',
      '--target',
      'es2022',
      '--lib',
      'es2023,esnext.disposable',
    ];
    const types = ['--typeRoots', join(root, 'node_modules/@types'), '--types', 'node', '--skipLibCheck'];
    const { stdout } = run(process.execPath, [
      join(root, 'node_modules/typescript/bin/tsc'),
      ...options,
      ...types,
      'consumer.ts',
    ]);
    // The one planted mistake is the one complaint: the types are real, and nothing else is wrong.
    expect(stdout.trim().split('\n')).toHaveLength(1);
    expect(stdout).toMatch(/consumer\.ts\(4,14\): error TS2322/);
  });
});
