/** The verifiers of R3V's sets, by the cases their official scorers disagree on, and the forms an answer may have. */
import { describe, expect, it } from 'vitest';
import { answerForms, extractAnswer } from '../../src/rewards/answer-forms.js';
import { accuracyReward } from '../../src/rewards/accuracy.js';
import { verifierByName } from '../../src/rewards/verifier.js';

const tagged = (answer: string): string => `<think>so</think><answer>${answer}</answer>`;
const isRight = (name: string, answer: string, gold: string, meta?: Record<string, unknown>): boolean =>
  verifierByName(name)(tagged(answer), gold, meta).correct;

describe('the form of an answer', () => {
  it.each([
    ['so 4. The answer is 5.', '5'],
    ['Answer: 5', '5'],
    ['Solution: 2 + 3\nAnswer:\n5\n', '5'],
    ['The answer is not 3, I think. So the answer is: 4', '4'],
    ['the answer is **12 km**.', '12 km'],
    ['It leaves late. The answer is 7:25 P.M.', '7:25 P.M.'],
    ['The answer is 3.50', '3.50'],
    ['Answer: (B) 30\nbecause', '(B) 30'],
    ['It is 5', null],
    ['The answer is', null],
    ['The answer is .', null],
    ['The answers are 3 and 4', null],
    ['', null],
  ])('%j holds the phrase answer %j', (text, answer) => {
    expect(extractAnswer(text, 'phrase')).toBe(answer);
  });

  it('is what was chosen, and nothing else', () => {
    expect(extractAnswer('the answer is 5')).toBeNull();
    expect(extractAnswer(tagged('5'), 'phrase')).toBeNull();
    expect(extractAnswer(tagged('5'), 'either')).toBe('5');
    expect(extractAnswer('the answer is 5', 'either')).toBe('5');
    expect(extractAnswer('the answer is 5 <answer></answer>', 'either')).toBeNull();
    expect(answerForms).toEqual(['tags', 'phrase', 'either']);
    expect(() => extractAnswer('', 'tag' as 'tags')).toThrow(expect.objectContaining({ code: 'invalid_config' }));
  });

  it('is a choice of every verifier', () => {
    expect(verifierByName('strict', 'phrase')('The answer is yes.', 'yes').correct).toBe(true);
    expect(verifierByName('strict', 'phrase')(tagged('yes'), 'yes')).toEqual({ correct: false, answer: null });
    expect(verifierByName('lenient', 'phrase')('The answer is: yes, it is', 'yes').correct).toBe(true);
    expect(verifierByName('geoqa', 'phrase')('The answer is (B).', 'B').correct).toBe(true);
  });
});

describe('chartqa: within 5 % of a number, text but for case', () => {
  it.each([
    ['105', '100'],
    ['95', '100'],
    ['21', '20'],
    ['-95', '-100'],
    ['\u2212100', '-100'],
    ['1,050', '1000'],
    ['1,000,000', '1000000'],
    ['.5', '0.5'],
    ['1e3', '1000'],
    ['50%', '0.5'],
    ['0.5', '50%'],
    ['52.5%', '50 %'],
    ['5.1 km', '5 km'],
    ['5 KM', '5 km'],
    ['0', '0'],
    ['0.0', '0'],
    ['yes', 'Yes'],
    ['New York', 'new york '],
    ['2010-2015', '2010-2015'],
  ])('%j is right for %j', (answer, gold) => {
    expect(isRight('chartqa', answer, gold)).toBe(true);
  });

  it.each([
    ['105.1', '100'],
    ['94.9', '100'],
    ['-100', '100'],
    ['0.01', '0'],
    ['50%', '50'],
    ['5 million', '5'],
    ['5', '5 million'],
    ['5 m', '5 km'],
    ['10,00', '1000'],
    ['1,0000', '10000'],
    ['2010-2015', '2010'],
    ['100 or 105', '100'],
    ['yes.', 'Yes'],
    ['no', 'Yes'],
    ['NaN', '5'],
    ['Infinity', '5'],
  ])('%j is wrong for %j', (answer, gold) => {
    expect(isRight('chartqa', answer, gold)).toBe(false);
  });
});

describe('clevr-math: the digits, exactly', () => {
  it.each([
    ['3', '3', true],
    ['3.', '3', true],
    ['-2', '-2', true],
    ['\u22122', '-2', true],
    ['03', '3', false],
    ['3.0', '3', false],
    ['three', '3', false],
    ['3 cubes', '3', false],
    ['13', '3', false],
    ['1,000', '1000', false],
    ['', '3', false],
  ])('%j for %j: %s', (answer, gold, correct) => {
    expect(isRight('clevr-math', answer, gold)).toBe(correct);
  });

  it('tells what it could not parse', () => {
    expect(verifierByName('clevr-math')(tagged('three'), '3')).toEqual({ correct: false, answer: null });
    expect(verifierByName('clevr-math')('3', '3')).toEqual({ correct: false, answer: null });
  });
});

describe('geoqa: one option letter', () => {
  it.each([
    'B',
    'b',
    '(B)',
    '(b)',
    'B.',
    'B)',
    'B:',
    'option B',
    'Choice (B)',
    '(B) 30',
    'B. 30 degrees',
    ' B ',
    'B) A square',
  ])('%j names option B', (answer) => {
    expect(verifierByName('geoqa')(tagged(answer), '(B)')).toEqual({ correct: true, answer: 'B' });
  });

  it.each([
    'A or B',
    '(A) or (B)',
    '(B) and (A)',
    'B, A',
    'AB',
    'B. 30 or A. 20',
    '(B)(A)',
    'B/A',
    '30',
    'Because',
    '()',
    '',
  ])('%j is no answer', (answer) => {
    expect(verifierByName('geoqa')(tagged(answer), 'B')).toEqual({ correct: false, answer: null });
  });

  it('another letter is wrong', () => {
    expect(isRight('geoqa', 'C', 'B')).toBe(false);
  });
});

describe('tabmwp: normalised answers', () => {
  it.each([
    ['$1,234.50', '1234.5', undefined],
    ['1,000', '1000', undefined],
    ['-3', '-3', undefined],
    ['-$5', '$-5', undefined],
    ['3/4', '0.75', undefined],
    ['-3/2', '-1.5', undefined],
    ['0.3333', '1/3', undefined],
    ['-0.0001', '0', undefined],
    ['56.4.', '56.4', undefined],
    ['12 cans', '12', { unit: 'cans' }],
    ['12', '12 Cans', { unit: 'cans' }],
    ['$12', '12', { unit: '$' }],
    ['No', 'no', undefined],
    ['7:25 P.M.', '7:25 p.m.', undefined],
    ['(B)', 'surplus', { choices: ['shortage', 'surplus'] }],
    ['B. surplus', 'surplus', { choices: ['shortage', 'surplus'] }],
    ['Surplus', 'surplus', { choices: ['shortage', 'surplus'] }],
    ['a', 'a', { choices: ['b', 'a'] }],
  ])('%j is right for %j with %j', (answer, gold, meta) => {
    expect(isRight('tabmwp', answer, gold, meta)).toBe(true);
  });

  it.each([
    ['12 cans', '12', undefined],
    ['12 cans', '12', { unit: 'boxes' }],
    ['3/0', '0', undefined],
    ['1/2/3', '0.167', undefined],
    ['50%', '0.5', undefined],
    ['1234.501', '1234.5', undefined],
    ['1.0006', '1', undefined],
    ['C', 'surplus', { choices: ['shortage', 'surplus'] }],
    ['a surplus maybe', 'surplus', { choices: ['shortage', 'surplus'] }],
    ['A or B', 'surplus', { choices: ['shortage', 'surplus'] }],
  ])('%j is wrong for %j with %j', (answer, gold, meta) => {
    expect(isRight('tabmwp', answer, gold, meta)).toBe(false);
  });

  it("gets the row's unit from the accuracy reward", async () => {
    const row = { id: 'a', prompt: 'p', images: [], solution: '12', meta: { unit: 'cans' } };
    const input = { row, completion: tagged('12 cans'), tokens: new Int32Array(0), finishReason: 'stop' };
    expect(await accuracyReward('tabmwp')(input)).toBe(1);
  });
});

describe('all of them', () => {
  it.each(['chartqa', 'clevr-math', 'geoqa', 'tabmwp'])('%s: what has no answer is wrong and unparsed', (name) => {
    for (const text of ['', 'no tags 3', '<answer>3', '<answer></answer>']) {
      expect(verifierByName(name)(text, name === 'geoqa' ? 'B' : '3')).toEqual({ correct: false, answer: null });
    }
  });

  it.each([
    ['clevr-math', 'three'],
    ['geoqa', '30 degrees'],
  ])('%s: a gold answer that cannot be one is an error of the data', (name, gold) => {
    expect(() => verifierByName(name)(tagged('3'), gold)).toThrow(expect.objectContaining({ code: 'bad_data' }));
  });
});
