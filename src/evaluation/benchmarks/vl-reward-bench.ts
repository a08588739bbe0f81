/**
 * VLRewardBench (Li et al., CVPR 2025, arXiv 2411.17451), files of MMInstruction/VL-RewardBench. Columns and `human_ranking`
 * ([0, 1]: the first response is preferred) are those of its dataset card. Groups come from the prefix of the id as in the
 * authors' cal.py; checked on 1,250 published ids: general 183, hallucination 749, reasoning 318.
 */
import { divisionAccuracy, itemObservations } from '../subsets.js';
import type { Benchmark } from './benchmark.js';

const groups = ['general', 'hallucination', 'reasoning'] as const;

/** Prefix of the id (before the first "_" or "-") -> source. Any other prefix is VLFeedback, as in the authors' code. */
const sources: Readonly<Record<string, string>> = {
  RLAIF: 'rlaif-v',
  RLHF: 'rlhf-v',
  mathverse: 'reasoning_tasks',
  mmmu: 'reasoning_tasks',
  wildvision: 'wildvision-battle',
  hallucination: 'povid',
};

const groupOfSource: Readonly<Record<string, (typeof groups)[number]>> = {
  vlfeedback: 'general',
  'wildvision-battle': 'general',
  povid: 'hallucination',
  'rlhf-v': 'hallucination',
  'rlaif-v': 'hallucination',
  reasoning_tasks: 'reasoning',
};

/**
 * The source and the group of an id. (Some evaluations miss the prefix "hallucination", whose 448 items then count as
 * general; their group numbers are not comparable.)
 */
export function vlRewardBenchGroup(id: string): { source: string; group: (typeof groups)[number] } {
  const source = sources[id.split(/[_-]/, 1)[0]!] ?? 'vlfeedback';
  return { source, group: groupOfSource[source]! };
}

export const vlRewardBench: Benchmark = {
  name: 'vl-reward-bench',
  title: 'VLRewardBench (Li et al. 2025)',
  hasTies: false,
  repeatsIds: true,
  pairsOf: (row) => {
    const id = row.id('id');
    const responses = row.list('response');
    const [first, second] = responses;
    if (responses.length !== 2 || typeof first !== 'string' || typeof second !== 'string')
      throw row.wrong('response', 'two texts', responses);
    const ranking = row.list('human_ranking').map(Number);
    const order = ranking.join();
    if (order !== '0,1' && order !== '1,0') throw row.wrong('human_ranking', '[0, 1] or [1, 0]', ranking);
    return [
      {
        id,
        noun: 'Answer',
        context: [{ image: row.image('image') }, { text: `\nQuestion: ${row.text('query')}` }],
        first: [{ text: first }],
        second: [{ text: second }],
        gold: order === '0,1' ? 'first' : 'second',
        subsets: vlRewardBenchGroup(id),
      },
    ];
  },
  headlines: (judgements) => {
    const division = divisionAccuracy(judgements, 'group');
    const whole = groups.every((group) => division?.subsets[group] !== undefined);
    const inside = judgements.filter(({ subsets }) => subsets['group'] !== undefined);
    const marks = groups.map((group) => itemObservations(inside.filter(({ subsets }) => subsets['group'] === group)));
    return [
      ...groups.map((group, i) => ({
        name: group,
        value: division?.subsets[group]?.accuracy ?? null,
        parts: [marks[i]!],
      })),
      { name: 'overall', value: division?.micro ?? null, parts: [itemObservations(inside)] },
      // The macro average of the authors is over all three groups.
      { name: 'macro', value: whole ? division!.macro : null, parts: marks },
    ];
  },
};
