/**
 * GenAI-Bench (Jiang et al., NeurIPS 2024, arXiv 2406.04485), rows of TIGER-Lab/GenAI-Bench: image generation, image editing
 * ("image_edition") and video generation, told apart by their columns (inference_configs.json of the authors), and the
 * video list of UnifiedReward (`video_left`, `video_right`). The authors score four labels, "both good" and "both bad" apart;
 * here both are a tie, so numbers with ties are not those of their leaderboard. Reward-model papers leave ties out.
 */
import { agreementObservations, agreementOf } from '../agreement.js';
import type { Choice } from '../judgement.js';
import type { Benchmark } from './benchmark.js';
import type { CandidatePair } from './judge-prompt.js';
import type { SourceRow } from './row-source.js';

const tasks = ['image_generation', 'image_edition', 'video_generation'] as const;
type Task = (typeof tasks)[number];

const votes = ['leftvote', 'rightvote', 'tievote', 'bothbad_vote'] as const;
const goldOfVote: Readonly<Record<(typeof votes)[number], Choice>> = {
  leftvote: 'first',
  rightvote: 'second',
  tievote: 'tie',
  bothbad_vote: 'tie',
};

export const genaiBench: Benchmark = {
  name: 'genai-bench',
  title: 'GenAI-Bench (Jiang et al. 2024)',
  hasTies: true,
  pairsOf: (row) => {
    const { task, ...pair } = taskPair(row);
    return [
      { id: `${task} ${row.place}`, ...pair, gold: goldOfVote[row.oneOf('vote_type', votes)], subsets: { task } },
    ];
  },
  headlines: (judgements) =>
    tasks.flatMap((task) => {
      const inside = judgements.filter(({ subsets, goldChoice }) => subsets['task'] === task && goldChoice !== null);
      const pairs = inside.map(({ goldChoice, choice }) => ({ gold: goldChoice!, predicted: choice }));
      const { accuracyWithoutTies, accuracyWithTies, goldTieRate } = agreementOf(pairs);
      return [
        {
          name: `${task}, without ties`,
          value: accuracyWithoutTies,
          parts: [agreementObservations(inside, 'without')],
        },
        ...(goldTieRate === null || goldTieRate === 0
          ? []
          : [
              {
                name: `${task}, with ties (3 labels)`,
                value: accuracyWithTies,
                parts: [agreementObservations(inside, 'with')],
              },
            ]),
      ];
    }),
};

function taskPair(row: SourceRow): CandidatePair & { task: Task } {
  if (row.has('left_video') || row.has('video_left')) {
    const [left, right] = row.has('left_video') ? ['left_video', 'right_video'] : ['video_left', 'video_right'];
    return {
      task: 'video_generation',
      noun: 'Video',
      context: [{ text: `Caption: ${row.text('prompt')}` }],
      first: [{ video: row.video(left) }],
      second: [{ video: row.video(right) }],
    };
  }
  if (row.has('left_output_image')) {
    return {
      task: 'image_edition',
      noun: 'Image',
      context: [
        { text: `Editing instruction: ${row.text('instruct_prompt')}\nSource image:\n` },
        { image: row.image('source_image') },
      ],
      first: [{ image: row.image('left_output_image') }],
      second: [{ image: row.image('right_output_image') }],
    };
  }
  return {
    task: 'image_generation',
    noun: 'Image',
    context: [{ text: `Caption: ${row.text('prompt')}` }],
    first: [{ image: row.image('left_image') }],
    second: [{ image: row.image('right_image') }],
  };
}
