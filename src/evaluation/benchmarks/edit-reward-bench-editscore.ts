/**
 * EditReward-Bench of EditScore (Luo et al. 2025, arXiv 2509.23909), rows of EditScore/EditReward-Bench. Not the benchmark of
 * the same name by TIGER-Lab. Columns as the authors' evaluation.py reads them; the first output is the better one, since
 * calculate_statistics.py counts score[0] > score[1] as right. Task types and their four groups are from that file too.
 */
import { meanOf } from '../interval.js';
import { divisionAccuracy, itemObservations } from '../subsets.js';
import type { Judgement } from '../judgement.js';
import type { Benchmark, HeadlineParts } from './benchmark.js';

/** Task type -> group. */
const groupOfTask = {
  'subject-add': 'object',
  'subject-remove': 'object',
  'subject-replace': 'object',
  color_alter: 'appearance',
  material_alter: 'appearance',
  style_change: 'appearance',
  tone_transfer: 'appearance',
  background_change: 'scene',
  extract: 'scene',
  ps_human: 'advanced',
  text_change: 'advanced',
  motion_change: 'advanced',
  compose: 'advanced',
} as const;
const taskTypes = Object.keys(groupOfTask) as (keyof typeof groupOfTask)[];
const groups = [...new Set(Object.values(groupOfTask))];

const criteria = {
  prompt_following: 'Judge only how well the edit follows the instruction.',
  consistency: 'Judge only how well everything that the instruction does not ask to change is kept.',
  overall: 'Judge the edit as a whole.',
} as const;
const dimensions = Object.keys(criteria) as (keyof typeof criteria)[];

export const editRewardBenchEditScore: Benchmark = {
  name: 'edit-reward-bench-editscore',
  title: 'EditReward-Bench of EditScore (Luo et al. 2025)',
  hasTies: false,
  pairsOf: (row) => {
    const keys = row.list('key');
    if (keys.length !== 2) throw row.wrong('key', 'two keys', keys);
    const outputs = row.list('output_images');
    if (outputs.length !== 2) throw row.wrong('output_images', 'two pictures', `${outputs.length} pictures`);
    const task = row.oneOf('task_type', taskTypes);
    const dimension = row.oneOf('dimension', dimensions);
    const [first, second] = outputs.map((image) => row.imageOf('output_images', image));
    return [
      {
        id: `${task} ${dimension} ${keys.join(' ')}`,
        noun: 'Image',
        context: [
          { text: `Editing instruction: ${row.text('instruction')}\nSource image:\n` },
          { image: row.image('input_image') },
          { text: `\n${criteria[dimension]}` },
        ],
        first: [{ image: first! }],
        second: [{ image: second! }],
        gold: 'first',
        subsets: { dimension, task, group: groupOfTask[task] },
      },
    ];
  },
  headlines: (judgements) => dimensions.flatMap((dimension) => dimensionHeadlines(judgements, dimension)),
};

/** The average of a dimension is over task types; that of a group over its task types. */
function dimensionHeadlines(judgements: readonly Judgement[], dimension: string): HeadlineParts[] {
  const inside = judgements.filter(({ subsets }) => subsets['dimension'] === dimension);
  const division = divisionAccuracy(inside, 'task');
  const average = (name: string, tasks: readonly string[]): HeadlineParts => {
    const present = tasks.filter((task) => division?.subsets[task] !== undefined);
    return {
      name,
      value: meanOf(present.map((task) => division!.subsets[task]!.accuracy)),
      parts: present.map((task) => itemObservations(inside.filter(({ subsets }) => subsets['task'] === task))),
    };
  };
  return [
    average(dimension, taskTypes),
    ...groups.map((group) =>
      average(
        `${dimension} ${group}`,
        taskTypes.filter((task) => groupOfTask[task] === group),
      ),
    ),
  ];
}
