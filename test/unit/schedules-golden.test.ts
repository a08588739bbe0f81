import { readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { scheduleFactor, scheduleSchema, warmupStepsOf, type ScheduleOptions } from '../../src/recipes/schedules.js';

interface Golden {
  schedules: { base_lr: number; warmup: number; total: number; values: Record<string, number[]> };
}

const golden = JSON.parse(await readFile(new URL('../goldens/adamw.json', import.meta.url), 'utf8')) as Golden;
const { warmup, total, values } = golden.schedules;

// The golden's name of each kind, and what transformers takes for granted there.
const cases: Record<string, Partial<ScheduleOptions>> = {
  linear: { kind: 'linear' },
  cosine: { kind: 'cosine' },
  constant_with_warmup: { kind: 'constant' },
  cosine_with_min_lr: { kind: 'cosine', minRatio: 0.1 },
  polynomial: { kind: 'polynomial', minRatio: 1e-7 },
  inverse_sqrt: { kind: 'inverse_sqrt' },
  warmup_stable_decay: { kind: 'wsd', decaySteps: 4 },
};

describe('learning-rate schedules', () => {
  test('every schedule of the golden has a case', () => {
    expect(Object.keys(values).sort()).toEqual(Object.keys(cases).sort());
  });

  test.each(Object.entries(cases))('%s equals transformers', (name, options) => {
    const resolved = { ...scheduleSchema.parse({ warmupSteps: warmup }), ...options };
    for (const [step, value] of values[name]!.entries()) {
      expect(scheduleFactor(resolved, step, total)).toBeCloseTo(value, 12);
    }
  });

  test('warm-up steps come from the ratio, rounded up, unless they are given', () => {
    expect(warmupStepsOf({ warmupRatio: 0.03 }, 100)).toBe(3);
    expect(warmupStepsOf({ warmupRatio: 0.03 }, 101)).toBe(4);
    expect(warmupStepsOf({ warmupRatio: 0.5, warmupSteps: 0 }, 100)).toBe(0);
  });

  test('factors stay in [0, 1] past the end', () => {
    for (const options of Object.values(cases)) {
      const resolved = { ...scheduleSchema.parse({ warmupSteps: 2 }), ...options };
      for (let step = 0; step < 40; step++) {
        const factor = scheduleFactor(resolved, step, 12);
        expect(factor).toBeGreaterThanOrEqual(0);
        expect(factor).toBeLessThanOrEqual(1);
      }
    }
  });
});
