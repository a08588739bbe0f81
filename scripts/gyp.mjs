// node-gyp without a download: it wants Node's headers, and a Node-API addon needs only node-api-headers. When Node's
// own prefix holds matching headers they are used, else a folder of the shape node-gyp expects is made from the package.
// Usage: node scripts/gyp.mjs [node-gyp arguments, default: rebuild]
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { projectRoot } from './sources.mjs';
import { findNodeGyp } from './toolchain.mjs';

function prefixWithHeaders() {
  const prefix = dirname(dirname(process.execPath));
  const header = join(prefix, 'include/node/node_version.h');
  if (!existsSync(header)) return undefined;
  const text = readFileSync(header, 'utf8');
  const part = (name) => new RegExp(`#define NODE_${name}_VERSION (\\d+)`).exec(text)?.[1];
  const version = ['MAJOR', 'MINOR', 'PATCH'].map(part).join('.');
  return version === process.versions.node ? prefix : undefined;
}

function makeNodedir() {
  const nodedir = join(projectRoot, 'build-nodedir');
  const include = join(nodedir, 'include/node');
  mkdirSync(include, { recursive: true });
  const headers = createRequire(join(projectRoot, 'package.json'))('node-api-headers').include_dir;
  cpSync(headers, include, { recursive: true });
  const { target_defaults, variables } = process.config;
  writeFileSync(join(include, 'config.gypi'), JSON.stringify({ target_defaults, variables }));
  const common = {
    target_defaults: {
      default_configuration: 'Release',
      configurations: { Debug: { cflags: ['-g', '-O0'] }, Release: { cflags: ['-O3'] } },
      cflags: ['-fPIC', '-pthread'],
      ldflags: ['-pthread'],
    },
  };
  writeFileSync(join(include, 'common.gypi'), JSON.stringify(common));
  return nodedir;
}

/** Runs node-gyp in the project root; returns its exit status. */
export function runNodeGyp(args) {
  const nodeGyp = findNodeGyp();
  if (!nodeGyp) {
    console.error(
      'Expected node-gyp but found none. Install it (npm install -g node-gyp), or build with CMake or plain g++.',
    );
    return 1;
  }
  const given = args.find((arg) => arg.startsWith('--nodedir='))?.slice('--nodedir='.length);
  const nodedir = given ?? prefixWithHeaders() ?? makeNodedir();
  const { status } = spawnSync(process.execPath, [nodeGyp, ...args, `--nodedir=${nodedir}`], {
    cwd: projectRoot,
    stdio: 'inherit',
    // node-gyp lets these win over its arguments, an empty one too.
    env: { ...process.env, npm_config_nodedir: nodedir, npm_package_config_node_gyp_nodedir: nodedir },
  });
  return status ?? 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const args = process.argv.slice(2);
  process.exitCode = runNodeGyp(args.length > 0 ? args : ['rebuild', '--jobs', process.env.GAVEL_JOBS ?? 'max']);
}
