/**
 * EditReward-Bench of EditReward by TIGER-Lab (Wu et al. 2025, arXiv 2509.26346). Not the benchmark of the same name by
 * EditScore. Two forms, as the authors' evaluation code reads them: a comparison a row (TIGER-Lab/EditReward-Bench), or a
 * ranking of 2 to 4 edits a row (EditReward_Bench_2pair.json, ...3pair.json, ...4pair.json). Rankings of 3 and 4 count only
 * when every comparison is right; that the hub's ids tell the ranking by what stands before "_" is taken from that code.
 */
import { agreementObservations, agreementOf } from '../agreement.js';
import { clusterAccuracy, clusterObservations, divisionAccuracy, itemObservations } from '../subsets.js';
import type { Choice, Judgement } from '../judgement.js';
import type { Benchmark, BenchmarkPair, HeadlineParts } from './benchmark.js';
import type { Piece } from './judge-prompt.js';
import type { SourceRow } from './row-source.js';

const sizes = ['2pair', '3pair', '4pair'] as const;
type Size = (typeof sizes)[number];

export const editRewardBenchTiger: Benchmark = {
  name: 'edit-reward-bench-tiger',
  title: 'EditReward-Bench of EditReward (TIGER-Lab, Wu et al. 2025)',
  hasTies: true,
  pairsOf: (row) => (row.has('paths_generated') || row.has('human_vote') ? ranking(row) : [comparison(row)]),
  headlines: (judgements) => {
    const of = (size: Size): Judgement[] => judgements.filter(({ subsets }) => subsets['size'] === size);
    const twos = of('2pair').filter(({ goldChoice }) => goldChoice !== null);
    const { accuracyWithTies, accuracyWithoutTies, goldTieRate } = agreementOf(
      twos.map(({ goldChoice, choice }) => ({ gold: goldChoice!, predicted: choice })),
    );
    const ranked = (size: Size, name: string): HeadlineParts => ({
      name,
      value: clusterAccuracy(of(size))?.accuracy ?? null,
      parts: [clusterObservations(of(size))],
    });
    return [
      // Where ties were left out there is no accuracy with ties to tell.
      goldTieRate === 0
        ? { name: '2-pair, without ties', value: accuracyWithoutTies, parts: [agreementObservations(twos, 'without')] }
        : { name: '2-pair, accuracy with ties', value: accuracyWithTies, parts: [agreementObservations(twos, 'with')] },
      ranked('3pair', '3-pair, all comparisons right'),
      ranked('4pair', '4-pair, all comparisons right'),
      {
        name: 'single comparisons',
        value: divisionAccuracy(judgements, 'size')?.micro ?? null,
        parts: [itemObservations(judgements.filter(({ subsets }) => subsets['size'] !== undefined))],
      },
    ];
  },
};

function contextOf(instruction: string, source: Piece): Piece[] {
  return [{ text: `Editing instruction: ${instruction}\nSource image:\n` }, source];
}

/** A row of the hub: candidates 1 and 2 are the letters of `comparison_type`, "AvsC"; `ranking` is "A>C", "C>A", "A=C". */
function comparison(row: SourceRow): BenchmarkPair {
  const size = row.oneOf('dataset', sizes);
  const id = row.id('id');
  const letters = row.has('comparison_type') ? /^([A-D])vs([A-D])$/.exec(row.text('comparison_type')) : ['', 'A', 'B'];
  if (letters === null) throw row.wrong('comparison_type', 'two letters such as AvsB', row.text('comparison_type'));
  const [first, second] = [letters[1]!, letters[2]!];
  return {
    id: `${size} ${id}${row.has('comparison_type') ? ` ${row.text('comparison_type')}` : ''}`,
    noun: 'Image',
    context: contextOf(row.text('instruction'), { image: row.image('source_image') }),
    first: [{ image: row.image('candidate_1') }],
    second: [{ image: row.image('candidate_2') }],
    gold: goldOf(row, 'ranking', row.text('ranking'), first, second),
    subsets: { size },
    ...(size === '2pair' ? {} : { cluster: `${size} ${id.includes('_') ? id.split('_')[0] : id.slice(0, 10)}` }),
  };
}

/** A row of the JSON files: `human_vote.ranking` orders all letters, "B>A>C", or ties two, "A=B=Good". */
function ranking(row: SourceRow): BenchmarkPair[] {
  const paths = row.list('paths_generated');
  const size = sizes[paths.length - 2];
  if (size === undefined) throw row.wrong('paths_generated', '2 to 4 paths', `${paths.length} paths`);
  const text = row.record('human_vote')['ranking'];
  if (typeof text !== 'string') throw row.wrong('human_vote.ranking', 'a ranking such as "B>A>C"', text);
  const letters = 'ABCD'.slice(0, paths.length).split('');
  const context = contextOf(row.text('prompt'), { image: row.image('path_src') });
  const cluster = row.place;
  return letters.flatMap((first, i) =>
    letters.slice(i + 1).map((second, offset) => ({
      id: `${cluster} ${first}vs${second}`,
      noun: 'Image' as const,
      context,
      first: [{ image: row.imageOf('paths_generated', paths[i]) }],
      second: [{ image: row.imageOf('paths_generated', paths[i + 1 + offset]) }],
      gold: goldOf(row, 'human_vote.ranking', text, first, second),
      subsets: { size },
      ...(size === '2pair' ? {} : { cluster }),
    })),
  );
}

/** Which of two letters a ranking prefers. */
function goldOf(row: SourceRow, column: string, text: string, first: string, second: string): Choice {
  const bare = text.replace(/\s+/g, '').replace(/=(?:Good|Bad)$/, '');
  if (!/^[A-D](?:[<>=][A-D])+$/.test(bare)) throw row.wrong(column, 'letters with <, > or = between them', text);
  if (/[<=]/.test(bare) && bare.length > 3) throw row.wrong(column, 'a ranking by > alone', text);
  const [a, b] = [bare.indexOf(first), bare.indexOf(second)];
  if (a < 0 || b < 0) throw row.wrong(column, `a ranking of ${first} and ${second}`, text);
  if (bare.includes('=')) return 'tie';
  return a < b === !bare.includes('<') ? 'first' : 'second';
}
