import { describe, expect, test } from 'vitest';
import { passGate } from '../../src/recipes/gate.js';
import { routeSamples } from '../../src/recipes/route.js';
import { decideSearch, searchSchema, settleSearch } from '../../src/recipes/search.js';
import { StepClock } from '../../src/recipes/step-clock.js';

describe('gate', () => {
  test.each([
    [50, 100],
    [55, 100],
    [0, 0],
    [3, 4],
  ])('refuses %i of %i: chance is inside the interval', (correct, count) => {
    expect(() => passGate(correct, count, { chance: 0.5 })).toThrow(
      expect.objectContaining({
        code: 'gate_refused',
        message: expect.stringMatching(/above chance \(0\.5\).*cold start/) as string,
      }),
    );
  });

  test('lets through what is above chance by its bound', () => {
    expect(() => passGate(70, 100, { chance: 0.5 })).not.toThrow();
    expect(() => passGate(70, 100, { chance: 0.65 })).toThrow();
  });
});

describe('routing', () => {
  const items = [
    { index: 0, id: 'a', correct: [true, true] },
    { index: 1, id: 'b', correct: [false, true] },
    { index: 2, id: 'c', correct: [false, false] },
  ];

  test('one correct sample to training, anything wrong to the hard pool, all-wrong counted', () => {
    const routing = routeSamples(items, 0);
    expect(routing.kept.map(({ index }) => index)).toEqual([0, 1]);
    expect(routing.kept[1]!.sample).toBe(1);
    expect(routing).toMatchObject({ hard: [1, 2], allWrong: 1, allRight: 1, accuracy: 0.5, passAtK: 2 / 3 });
  });

  test('the choice depends on seed and id, not on order', () => {
    const many = Array.from({ length: 50 }, (_, index) => ({
      index,
      id: `i${index}`,
      correct: [true, true, true, true],
    }));
    const forward = routeSamples(many, 5).kept;
    const backward = routeSamples([...many].reverse(), 5).kept.reverse();
    expect(forward).toEqual(backward);
    expect(new Set(forward.map(({ sample }) => sample)).size).toBe(4);
    expect(routeSamples(many, 6).kept).not.toEqual(forward);
  });
});

describe('search of the point between chance and saturation', () => {
  const options = searchSchema.parse({});
  const point = (step: number, accuracy: number, formatRate = 1) => ({ step, accuracy, count: 400, formatRate });

  test('goes on at chance and in the weak', () => {
    expect(decideSearch([], 20, options)).toEqual({ action: 'continue' });
    expect(decideSearch([point(20, 0.5), point(40, 0.62)], 20, options)).toEqual({ action: 'continue' });
  });

  test('takes the first point in the band', () => {
    expect(decideSearch([point(20, 0.5), point(40, 0.75)], 20, options)).toEqual({
      action: 'accept',
      step: 40,
      reason: 'found',
    });
  });

  test('steps back over saturation to a point that left chance', () => {
    const points = [point(20, 0.5), point(40, 0.66), point(60, 0.95)];
    expect(decideSearch(points, 20, options)).toEqual({ action: 'accept', step: 40, reason: 'found' });
  });

  test('looks closer when the jump fell between two evaluations, then gives in', () => {
    const points = [point(20, 0.5), point(40, 0.97)];
    expect(decideSearch(points, 20, options)).toEqual({ action: 'rewind', step: 20, every: 5 });
    expect(decideSearch([point(40, 0.97)], 20, options)).toEqual({ action: 'rewind', step: 0, every: 5 });
    expect(decideSearch(points, 5, options)).toEqual({ action: 'accept', step: 40, reason: 'saturated' });
  });

  test('a rate above chance by luck is not taken', () => {
    const few = [{ step: 10, accuracy: 0.75, count: 8, formatRate: 1 }];
    expect(decideSearch(few, 10, options)).toEqual({ action: 'continue' });
  });

  test('a point that loses the format is passed over, and taken last of all', () => {
    expect(decideSearch([point(20, 0.5), point(40, 0.75, 0.97)], 20, options)).toEqual({ action: 'continue' });
    const points = [point(20, 0.66), point(40, 0.75, 0.9), point(60, 0.95)];
    expect(decideSearch(points, 20, options)).toEqual({ action: 'accept', step: 20, reason: 'found' });
    expect(settleSearch([point(10, 0.6), point(20, 0.8, 0.5)], options)?.step).toBe(10);
    expect(settleSearch([point(20, 0.8, 0.5)], options)?.step).toBe(20);
  });

  test('when time runs out it takes the best that is not saturated', () => {
    expect(settleSearch([point(10, 0.6), point(20, 0.55)], options)?.step).toBe(10);
    expect(settleSearch([point(10, 0.9)], options)?.step).toBe(10);
    expect(settleSearch([], options)).toBeUndefined();
  });
});

describe('step clock', () => {
  test('shortens the plan whenever the pace demands it, and never stretches it', () => {
    const clock = new StepClock(100);
    for (let step = 1; step < 10; step++) expect(clock.record(1, step, 100)).toBe(false);
    expect(clock.record(1, 10, 20)).toBe(true);
    expect(clock.totalSteps).toBe(10 + Math.floor(20 * 0.95));
    for (let step = 11; step < 20; step++) expect(clock.record(2, step, 10)).toBe(false);
    expect(clock.record(2, 20, 10)).toBe(true);
    expect(clock.totalSteps).toBe(20 + Math.floor((10 * 0.95) / 2));
    for (let step = 21; step <= 40; step++) clock.record(0.01, step, 1000);
    expect(clock.totalSteps).toBe(24);
  });

  test('keeps a plan that fits', () => {
    const clock = new StepClock(20);
    for (let step = 1; step <= 10; step++) clock.record(0.1, step, 100);
    expect(clock.totalSteps).toBe(20);
    expect(clock.secondsLeft(10)).toBeCloseTo(1);
  });

  test('measures a whole period, evaluation included', () => {
    const clock = new StepClock(1000, 20);
    for (let step = 1; step < 20; step++) expect(clock.record(1, step, 1)).toBe(false);
    expect(clock.record(21, 20, 200)).toBe(true);
    expect(clock.totalSteps).toBe(20 + Math.floor((200 * 0.95) / 2));
  });
});
