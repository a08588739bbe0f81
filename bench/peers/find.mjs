// Peers that this machine has, or why one is missing and how to get it.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import process from 'node:process';
import { projectRoot } from '../machine.mjs';

export const script = (name) => join(projectRoot, 'bench/peers', name);

const lastLine = (text) => text.trim().split('\n').at(-1);

/** A Python with torch, transformers and trl, or why there is none. */
export function findPython() {
  const python = process.env.GAVEL_PEER_PYTHON || 'python3';
  const probe =
    'import torch, transformers, trl; print("torch", torch.__version__, "transformers", transformers.__version__, "trl", trl.__version__)';
  const { status, stdout, stderr, error } = spawnSync(python, ['-c', probe], { encoding: 'utf8' });
  if (status === 0) return { python, versions: lastLine(stdout) };
  const reason = error?.message ?? lastLine(stderr);
  return {
    reason: `${python}: ${reason}. Make one with \`python3 -m venv PEERS && PEERS/bin/pip install torch==2.13.0 transformers==5.17.0 trl==1.13.0 gguf\` and name it: GAVEL_PEER_PYTHON=PEERS/bin/python`,
  };
}

/** A folder with node-llama-cpp, or why there is none. `python` must have gguf, which writes the weights for it. */
export function findLlama(python) {
  const folder = process.env.GAVEL_PEER_LLAMA || projectRoot;
  const name = 'node-llama-cpp';
  const { platform, arch } = process;
  const system = `${platform === 'darwin' ? 'mac' : platform}-${arch}`;
  try {
    const entry = createRequire(join(folder, 'package.json')).resolve(name);
    const [root] = entry.split(`${name}/dist`);
    const { version } = createRequire(entry)(join(root, name, 'package.json'));
    if (spawnSync(python, ['-c', 'import gguf'], { encoding: 'utf8' }).status === 0)
      return { folder, versions: `${name} ${version}` };
    return { reason: `${python} has no gguf: pip install gguf` };
  } catch {
    return {
      reason: `no ${name} (85 MB). Run \`mkdir LLAMA && cd LLAMA && npm init -y && npm install --omit=optional --ignore-scripts ${name}@3.22.1 @node-llama-cpp/${system}@3.22.1\` and name the folder: GAVEL_PEER_LLAMA=LLAMA`,
    };
  }
}
