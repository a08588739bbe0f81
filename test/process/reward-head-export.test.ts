// What is exported with a reward head is an ordinary checkpoint: transformers loads it without the head, its tokenizer knows
// the reward token, and its logits are the engine's. Needs Python with transformers (GAVEL_PYTHON); else it says so.
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it, onTestFinished } from 'vitest';
import { createEngine } from '../../src/engine/index.js';

const python = process.env['GAVEL_PYTHON'] ?? 'python3';
const { status, stderr } = spawnSync(python, ['-c', 'import torch, transformers'], { encoding: 'utf8' });
if (status !== 0)
  console.log(`reward-head-export: skipped: ${python}: ${stderr?.trim().split('\n').at(-1) ?? 'not found'}`);

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

const program = `
import json, sys, torch, transformers
folder, name, ids = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model, report = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
print(json.dumps({
    "token": tokenizer.encode("ab<|reward|>", add_special_tokens=False)[-1],
    "text": tokenizer.decode([512]),
    "rows": model.get_input_embeddings().weight.shape[0],
    "problems": sorted(report["missing_keys"]) + sorted(report["unexpected_keys"]) + sorted(report["mismatched_keys"]),
    "logits": logits.tolist(),
}))
`;

it.skipIf(status !== 0).each([
  ['micro-text', 'AutoModelForCausalLM', {}],
  ['micro-text', 'AutoModelForCausalLM', { lora: { rank: 4 } }],
  ['micro-vl', 'AutoModelForImageTextToText', {}],
] as const)('transformers loads what was exported from %s with a reward head', async (name, modelClass, options) => {
  const folder = await mkdtemp(join(tmpdir(), 'gavel-reward-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const rewardHead = { hiddenSizes: [12, 8] };
  const model = await engine.loadModel(join(import.meta.dirname, '../goldens', name), { rewardHead, ...options });
  const row = (seed: number) => ({
    promptTokens: Int32Array.of(5 + seed, 9, 33, 512),
    images: [],
    completions: [{ tokens: Int32Array.of(40, 41, seed) }],
  });
  await model.forwardBackward(
    [row(1), row(2)],
    [{ kind: 'ranking', loss: 'uncertainty', pairs: { chosen: [0], rejected: [1] } }, { kind: 'nll' }],
  );
  await model.optimizerStep({ learningRate: 1e-2 });
  const out = join(folder, 'out');
  await model.exportHf(out);
  const ids = [6, 9, 33, 512];
  const ran = spawnSync(python, ['-c', program, out, modelClass, JSON.stringify(ids)], {
    encoding: 'utf8',
    env: { ...process.env, HF_HUB_OFFLINE: '1', TRANSFORMERS_VERBOSITY: 'error' },
  });
  expect(ran.status, ran.stderr).toBe(0);
  const { token, text, rows, problems, logits } = JSON.parse(ran.stdout.trim().split('\n').at(-1)!);
  expect({ token, text, rows, problems }).toEqual({ token: 512, text: '<|reward|>', rows: 513, problems: [] });
  const own = await model.logits({
    promptTokens: Int32Array.from(ids),
    images: [],
    completions: [{ tokens: Int32Array.of(7) }],
  });
  const worst = Math.max(...own.map((value, i) => Math.abs(value - logits[i])));
  expect(own.length).toBe(513);
  expect(worst).toBeLessThan(2e-4);
});
