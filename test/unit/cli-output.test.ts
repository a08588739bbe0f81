import { describe, expect, test } from 'vitest';
import { formatSeconds, ProgressRenderer } from '../../src/cli/progress.js';
import { stageTable } from '../../src/cli/stage-table.js';
import type { TrainEvent } from '../../src/recipes/events.js';
import { examplesPage } from '../../src/runs/examples-page.js';
import { linePlot, movingMean, roundTicks } from '../../src/runs/line-plot.js';

const stepEnd = (step: number): TrainEvent => ({
  type: 'step-end',
  stage: 'grpo',
  step,
  totalSteps: 60,
  loss: 0.1,
  reward: 1.25,
  learningRate: 1e-6,
  gradNorm: 1,
  applied: true,
  tokensPerSecond: 1234.4,
  stepSeconds: 1,
  secondsLeft: 75,
  metrics: { kl: 0.02 },
});

describe('progress', () => {
  test('a terminal gets one line that is rewritten, and lasting lines of their own', () => {
    let out = '';
    let now = 0;
    const progress = new ProgressRenderer({
      write: (text) => (out += text),
      isTerminal: true,
      now: () => (now += 200),
    });
    progress.show(stepEnd(1));
    progress.show(stepEnd(2));
    progress.show({ type: 'note-taken', stage: 'grpo', message: 'hello', fields: {} });
    expect(out).toBe(
      '\r\u001b[2K[grpo] step 1/60, reward 1.250, kl 0.0200, 1234 tokens/s, 1 min 15 s left' +
        '\r\u001b[2K[grpo] step 2/60, reward 1.250, kl 0.0200, 1234 tokens/s, 1 min 15 s left' +
        '\r\u001b[2K[grpo] hello\n',
    );
  });

  test('elsewhere a plain line every few seconds, without control characters', () => {
    let out = '';
    let now = 0;
    const progress = new ProgressRenderer({ write: (text) => (out += text), isTerminal: false, now: () => now });
    for (let i = 0; i < 100; i++) {
      now = i * 100;
      progress.show(stepEnd(i));
    }
    expect(out.split('\n').filter(Boolean)).toHaveLength(2);
    expect(out.includes('\u001b') || out.includes('\r')).toBe(false);
  });

  test('seconds are read easily', () => {
    expect([0, 59.4, 60, 61, 600].map(formatSeconds)).toEqual([
      '0 s',
      '59 s',
      '1 min 00 s',
      '1 min 01 s',
      '10 min 00 s',
    ]);
  });
});

test('the table has a stage a row and a dash where there is no number', () => {
  const table = stageTable({
    stages: [
      {
        name: 'perception',
        accuracy: null,
        accuracyLow: null,
        accuracyHigh: null,
        unseenArtistAccuracy: null,
        directAccuracy: null,
        formatRate: null,
        orderConsistency: null,
        seconds: 31.26,
        tokensPerSecond: 2000.4,
        perception: 0.991,
      },
      {
        name: 'cold-start',
        accuracy: 0.75,
        accuracyLow: 0.7,
        accuracyHigh: 0.8,
        unseenArtistAccuracy: 0.7,
        directAccuracy: 0.5,
        formatRate: 1,
        orderConsistency: 0.9,
        seconds: 40,
        tokensPerSecond: null,
      },
    ],
  });
  expect(table).toMatchInlineSnapshot(`
    "stage            accuracy [95 %]  unseen artist  direct  perception  verdict cons.  score cons.  format  order cons.  seconds  tokens/s
    ----------  --------------------  -------------  ------  ----------  -------------  -----------  ------  -----------  -------  --------
    perception                     -              -       -       0.991              -            -       -            -     31.3      2000
    cold-start  0.750 [0.700, 0.800]          0.700   0.500           -              -            -   1.000        0.900     40.0         -"
  `);
});

describe('plots', () => {
  test('ticks are round and cover the range', () => {
    expect(roundTicks(0, 1)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(roundTicks(-3, 7)).toEqual([-2, 0, 2, 4, 6]);
    expect(roundTicks(5, 5).length).toBeGreaterThan(0);
  });

  test('is one well-formed SVG without what is not finite, and text cannot become markup', () => {
    const svg = linePlot({
      title: 'a < b & "c"',
      xLabel: 'step',
      yLabel: 'reward',
      series: [
        {
          name: '<x>',
          points: [
            { x: 0, y: 1 },
            { x: 1, y: NaN },
            { x: 2, y: 3, low: 2, high: 4 },
          ],
        },
        { name: 'smooth', smooth: 3, points: Array.from({ length: 9 }, (_, x) => ({ x, y: x % 2 })) },
      ],
    });
    expect(svg.startsWith('<svg xmlns=')).toBe(true);
    expect(svg).not.toContain('NaN');
    expect(svg).toContain('a &lt; b &amp; &quot;c&quot;');
    expect(svg).toContain('&lt;x&gt;');
    expect((svg.match(/<[a-z]+[^>]*[^/]>/g) ?? []).length).toBe((svg.match(/<\/[a-z]+>/g) ?? []).length);
    expect(linePlot({ title: '', xLabel: '', yLabel: '', series: [] })).not.toContain('Infinity');
  });

  test('moving mean', () => {
    const points = [0, 3, 6].map((y, x) => ({ x, y }));
    expect(movingMean(points, 3).map(({ y }) => y)).toEqual([1.5, 3, 4.5]);
  });
});

test('the page of examples carries its pictures, says right and wrong in words, and escapes what a model wrote', () => {
  const html = examplesPage({
    title: 'Judge',
    introduction: ['One run.'],
    table: { columns: ['stage'], rows: [['grpo']] },
    plots: ['<svg></svg>'],
    examples: [
      {
        title: 'Example 1',
        prompt: 'dog car _ key',
        pictures: [{ source: 'data:image/png;base64,AAAA', description: 'dog, car' }],
        rationale: [
          {
            label: 'Image 1',
            words: [
              { text: 'dog', right: true },
              { text: 'cat', right: false, truth: 'car' },
            ],
          },
        ],
        verdict: 'Image 1 is better',
        truth: 'Image 2 is better',
      },
      {
        title: 'Example 2',
        prompt: 'x',
        pictures: [],
        rationale: '<script>alert(1)</script>',
        verdict: null,
        truth: 'Image 1 is better',
      },
    ],
  });
  expect(html).toContain('alt="Image 1: dog, car"');
  expect(html).toContain('src="data:image/png;base64,AAAA"');
  expect(html).toContain('in truth: car');
  expect(html).toContain('(wrong)');
  expect(html).not.toContain('<script>');
  expect(html).not.toMatch(/https?:\/\/(?!www\.w3\.org)/);
  expect(html).toContain('no answer');
});
