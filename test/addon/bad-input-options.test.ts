// Options, configurations and numbers that cannot be used. What each case checks stands in bad-input.ts.
import { datasetFromRows, defaultJudge, evaluate, grpo, sft, train } from '../../src/index.js';
import {
  failureOf,
  failureOfCommand,
  word,
  validation,
  rollouts,
  withPolicy,
  trainOn,
  withTrained,
  configuration,
  describeMistakes,
} from './bad-input.js';
import { textFolder, textGroup } from './model-fixture.js';

describeMistakes('options', [
  {
    what: 'a key that run.yaml does not know',
    make: async () =>
      failureOfCommand([
        'train',
        await configuration({
          stage: 'recipe: sft\n    data: { path: data.jsonl }\n    options: { steps: 1, learningrat: 1 }',
        }),
      ]),
    code: 'invalid_config',
    exitCode: 2,
    expected: /Expected a known key/,
    received: /received `stages\.0\.options\.learningrat` \(line \d+\)/,
    advice: /Did you mean `learningRate`\?/,
  },
  {
    what: 'an option that a recipe does not know',
    make: () =>
      failureOf(() =>
        sft({ data: datasetFromRows('rows', [word]), options: { optimizer: { weightDecoy: 1 } } as object }),
      ),
    code: 'invalid_argument',
    expected: /Expected a known option/,
    received: /received `options\.optimizer\.weightDecoy`/,
    advice: /Did you mean `weightDecay`\?/,
  },
  {
    what: 'an option that a policy does not know',
    make: () => failureOf(() => trainOn(textFolder, word, { maxPromptToken: 3 })),
    code: 'invalid_argument',
    expected: /Expected a known option/,
    received: /received `options\.maxPromptToken`/,
    advice: /Did you mean `maxPromptTokens`\?/,
  },
  {
    what: 'several greedy completions of an evaluation',
    make: () => failureOf(() => evaluate({ ...validation([word]), options: { samples: 4 } })),
    code: 'invalid_argument',
    expected: /Expected a valid `options\.samples`.*expected 1 with temperature 0/,
    received: /received 4/,
    advice: /set a temperature/,
  },
  {
    what: 'several greedy completions in run.yaml',
    make: async () =>
      failureOfCommand([
        'train',
        await configuration({ stage: 'recipe: evaluate\n    data: { path: data.jsonl, samples: 2 }' }),
      ]),
    code: 'invalid_config',
    exitCode: 2,
    expected: /Expected a valid `stages\.0\.data\.samples` \(line \d+\)/,
    received: /received 2/,
    advice: /set a temperature/,
  },
  {
    what: 'several greedy completions asked of the command',
    make: async () =>
      failureOfCommand(['sample', '--model', textFolder, '--prompt', 'a', '--group', '4', '--temperature', '0']),
    code: 'invalid_argument',
    exitCode: 2,
    expected: /Expected 1 with --temperature 0 for `--group`/,
    received: /received 4/,
    advice: /Greedy completions are all equal/,
  },
  {
    what: 'UnifiedReward-Think without rows to validate on',
    make: async () =>
      failureOfCommand([
        'train',
        await configuration({
          stage: 'recipe: unified-reward-think\n    coldStart: { path: data.jsonl }\n    pool: { path: data.jsonl }',
        }),
      ]),
    code: 'invalid_config',
    exitCode: 2,
    expected: /Expected a valid `stages\.0\.validation`.*expected rows to validate on/,
    received: /received (nothing|undefined|no value|none)/,
    advice: /the gate of GRPO measures the policy/,
  },
  {
    what: 'a recipe that does not exist',
    make: async () => failureOfCommand(['train', await configuration({ stage: 'recipe: grop' })]),
    code: 'invalid_config',
    exitCode: 2,
    expected: /Expected a valid `stages\.0\.recipe` \(line \d+\)/,
    received: /received "grop"/,
    advice: /'sft', 'rejection', 'grpo', .*'evaluate'/,
  },
  {
    what: 'a group of one',
    make: () =>
      failureOf(() =>
        grpo({
          data: datasetFromRows('rows', [word]),
          validation: validation([word]),
          options: { ...rollouts, groupSize: 1 },
        }),
      ),
    code: 'invalid_argument',
    expected: /Expected a valid `options\.groupSize`.*expected an integer >= 2/,
    received: /received 1/,
    advice: /A group of one has no relative advantage/,
  },
  {
    what: 'a group of one in run.yaml',
    make: async () =>
      failureOfCommand([
        'train',
        await configuration({
          stage:
            'recipe: grpo\n    data: { path: data.jsonl }\n    validation: { path: data.jsonl }\n    options: { groupSize: 1 }',
        }),
      ]),
    code: 'invalid_config',
    exitCode: 2,
    expected: /Expected a valid `stages\.0\.options\.groupSize` \(line \d+\)/,
    received: /received 1/,
    advice: /A group of one has no relative advantage/,
  },
  {
    what: 'a reward that is not a number',
    make: () => {
      const judge = { ...defaultJudge, rewards: [{ name: 'broken', reward: () => NaN }] };
      const row = { ...word, solution: 'this one' };
      const recipe = grpo({
        data: datasetFromRows('rows', [row]),
        judge,
        validation: validation([row]),
        options: rollouts,
      });
      return failureOf(() => withPolicy(textFolder, (policy) => train(policy, recipe).result));
    },
    code: 'non_finite',
    expected: /Expected a finite number or null from reward function "broken" for item "a"/,
    received: /received NaN/,
    advice: /Return null where there is no reward/,
  },
  {
    what: 'an objective that does not exist',
    make: () =>
      failureOf(() => withTrained((model) => model.forwardBackward([textGroup()], [{ kind: 'gpro' } as never]))),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.kind`/,
    received: /received "gpro"/,
    advice: /expected an objective this engine has: 'nll', 'grpo', 'dpo' or 'ranking'/,
  },
  {
    what: 'a loss that is not finite',
    make: () => {
      const group = textGroup();
      const completions = group.completions.map((one) => ({ ...one, advantage: 1e308 }));
      return failureOf(() =>
        withTrained((model) =>
          model.forwardBackward(
            [{ ...group, completions }],
            [{ kind: 'grpo', lossType: 'luspo', epsilonLow: 0.2, weight: 100 }],
          ),
        ),
      );
    },
    code: 'non_finite',
    expected: /Expected a finite loss/,
    received: /received -?(inf|nan)/,
    advice: /lower the learning rate or check rewards and log-probs/,
  },
]);
