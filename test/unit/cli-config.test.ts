import { describe, expect, test } from 'vitest';
import { parseConfig, applyOverride } from '../../src/cli/config-file.js';
import { checkDropout } from '../../src/recipes/check-dropout.js';
import { editDistance, nearestName } from '../../src/schema/nearest.js';
import { jsonSchemaOf, runConfigSchema, schemas } from '../../src/recipes/run-config.js';

const text = `run: runs/judge
model:
  path: model
stages:
  - name: cold-start
    recipe: sft
    data: { path: train.jsonl }
    options:
      learningRate: 1e-5
  - name: rl
    recipe: grpo
    data: { path: rl.jsonl }
    validation: { path: val.jsonl }
`;

const parse = (source: string, overrides: string[] = []) => parseConfig(source, runConfigSchema, { overrides });

describe('run.yaml', () => {
  test('defaults are filled in', () => {
    const config = parse(text);
    expect(config.stages[0]).toMatchObject({ options: { learningRate: 1e-5, batchSize: 128, epochs: 3 } });
    expect(config.stages[1]).toMatchObject({
      rewards: { format: 1, accuracy: 1 },
      options: { groupSize: 8, beta: 0.04, learningRate: 1e-6, lossType: 'grpo', klClamp: 10, klBiasCorrection: false },
    });
    expect(config.model.trainable).toBe('language');
  });

  test.each([
    ['learningRate: 1e-5', 'learningrate: 1e-5', 'stages.0.options.learningrate', 9, 'learningRate'],
    [
      'data: { path: rl.jsonl }',
      'data: { path: rl.jsonl }\n    reward: { accuracy: 2 }',
      'stages.1.reward',
      13,
      'rewards',
    ],
    ['model:\n', 'modle: {}\nmodel:\n', 'modle', 2, 'model'],
    ['  path: model', '  path: model\n  dtyp: bf16', 'model.dtyp', 4, 'dtype'],
  ])('an unknown key names the nearest one and its line: %s', (from, to, key, line, nearest) => {
    expect(() => parse(text.replace(from, to))).toThrow(
      expect.objectContaining({
        code: 'invalid_config',
        fields: expect.objectContaining({ key, line, nearest }) as object,
        message: expect.stringContaining(`Did you mean \`${nearest}\`?`) as string,
      }),
    );
  });

  test('reinforcement learning without validation: only where nothing needs it, and the message says what does', () => {
    const without = text.replace('    validation: { path: val.jsonl }\n', '');
    const options = (yaml: string): string => `${without}    options: { ${yaml} }\n`;
    const refusal = (reason: RegExp): unknown =>
      expect.objectContaining({
        code: 'invalid_config',
        message: expect.stringMatching(reason) as string,
        fields: expect.objectContaining({ key: 'stages.1.validation' }) as object,
      });
    expect(() => parse(without)).toThrow(refusal(/the gate measures the policy before the first step/));
    expect(() => parse(options('gate: { enabled: false }, evaluateEvery: 5'))).toThrow(
      refusal(/`evaluateEvery` measures on the way/),
    );
    const [, stage] = parse(options('gate: { enabled: false }')).stages;
    expect(stage).toMatchObject({ recipe: 'grpo', options: { gate: { enabled: false } } });
    expect(stage).not.toHaveProperty('validation');
  });

  test('a key of another recipe is unknown here, and what is known is listed', () => {
    const broken = text.replace('learningRate: 1e-5', 'zzz: 1');
    expect(() => parse(broken)).toThrow(/Known: .*batchSize/);
  });

  test('a group of one is refused with the reason', () => {
    const broken = text.replace('recipe: grpo', 'recipe: grpo\n    options: { groupSize: 1 }');
    expect(() => parse(broken)).toThrow(/stages\.1\.options\.groupSize.*received 1.*no relative advantage/s);
  });

  test('YAML that is none names its line', () => {
    expect(() => parse('run: [\nmodel: {')).toThrow(expect.objectContaining({ code: 'invalid_config' }));
    expect(() => parse('run: a\nrun: b\n')).toThrow(/line 2/);
  });

  test('--set reaches items of lists, and nothing that is not of the file', () => {
    const value = { stages: [{ seed: 0 }] };
    applyOverride(value, 'stages.0.seed=1');
    applyOverride(value, 'stages.1.seed=2');
    expect(value).toEqual({ stages: [{ seed: 1 }, { seed: 2 }] });
    expect(() => applyOverride(value, 'stages.x.seed=1')).toThrow(
      /item of the list stages \(0 to 1, or 2 for one more\)/,
    );
    expect(() => applyOverride(value, 'stages.7.seed=1')).toThrow(/stages/);
    for (const key of ['__proto__.x', 'stages.constructor.y', 'toString'])
      expect(() => applyOverride(value, `${key}=1`)).toThrow(/keys of the file/);
    expect(({} as Record<string, unknown>)['x']).toBeUndefined();
  });

  test('--set goes through the same check', () => {
    const config = parse(text, ['stages.1.options.groupSize=4', 'model.dtype=bf16']);
    expect(config.stages[1]).toMatchObject({ options: { groupSize: 4 } });
    expect(config.model.dtype).toBe('bf16');
    expect(() => parse(text, ['model.dtyp=bf16'])).toThrow(/Did you mean `dtype`/);
    expect(() => parse(text, ['novalue'])).toThrow(/key=value/);
    const value = {};
    applyOverride(value, 'a.b=[1, 2]');
    expect(value).toEqual({ a: { b: [1, 2] } });
  });
});

describe('dropout of an adapter', () => {
  const { stages } = parse(text);
  const [supervised, reinforced] = [stages.slice(0, 1), stages];

  test('is refused with a stage that compares log-probs of two passes, before anything runs', () => {
    expect(() => checkDropout(0.1, reinforced)).toThrow(
      'Expected 0 with a stage of recipe grpo ("rl") for `model.lora.dropout` but received 0.1.',
    );
    expect(() => checkDropout(0.1, reinforced)).toThrow(expect.objectContaining({ code: 'invalid_config' }));
  });

  test('is fine in supervised stages, and none is fine in every one', () => {
    expect(() => checkDropout(0.1, supervised)).not.toThrow();
    expect(() => checkDropout(0, reinforced)).not.toThrow();
  });
});

describe('messages', () => {
  test.each([
    [{ 'stages.0.options.learningRate': 'fast' }, 'received "fast": it must be a number.'],
    [{ 'stages.0.options.learningRate': '-1' }, 'received -1: it must be'],
    [{ 'stages.0.options.batchSize': '1.5' }, 'received 1.5: it must be an integer.'],
    [
      { 'model.dtype': 'fp8' },
      'Expected a valid `model.dtype` (line 2) but received "fp8": it must be one of "fp32", "bf16".',
    ],
    [{ 'model.lora.targets': '7' }, 'received 7: it must be "all-linear" or a list.'],
    [{ 'model.lora.targets': '[]' }, 'received []: it must not be empty.'],
    [{ 'model.freeze': '{}' }, 'received {}: it must be a list.'],
    [{ 'stages.0.name': 'A b' }, 'received "A b": expected lower-case letters, digits and dashes.'],
  ])('%j', (overrides, message) => {
    const set = Object.entries(overrides).map(([key, value]) => `${key}=${value}`);
    expect(() => parse(text, set)).toThrow(message);
    expect(() => parse(text, set)).not.toThrow(/Invalid |Too (small|big)/);
  });
});

describe('JSON Schema', () => {
  test.each(Object.keys(schemas))('%s: every field is described', (name) => {
    const undescribed: string[] = [];
    const walk = (node: unknown, path: string): void => {
      if (typeof node !== 'object' || node === null) return;
      const { properties, items, anyOf, oneOf } = node as Record<string, unknown>;
      for (const [key, child] of Object.entries((properties ?? {}) as Record<string, { description?: string }>)) {
        if (child.description === undefined) undescribed.push(`${path}.${key}`);
        walk(child, `${path}.${key}`);
      }
      walk(items, `${path}[]`);
      for (const choice of [...((anyOf ?? []) as unknown[]), ...((oneOf ?? []) as unknown[])]) walk(choice, path);
    };
    walk(jsonSchemaOf(name as keyof typeof schemas), name);
    expect(undescribed).toEqual([]);
  });
});

test('edit distance', () => {
  expect(editDistance('kitten', 'sitting')).toBe(3);
  expect(editDistance('', 'abc')).toBe(3);
  expect(nearestName('groupsize', ['groupSize', 'epsilon'])).toBe('groupSize');
  expect(nearestName('xyz', ['groupSize', 'epsilon'])).toBeUndefined();
});
