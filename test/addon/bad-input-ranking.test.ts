// Comparisons of scores that cannot be, given to `rankingLoss` and to the ranking objective. What each case checks stands in
// bad-input.ts.
import { rankingLoss, type RankingLossInput } from '../../src/kernels.js';
import type { Objective } from '../../src/engine/index.js';
import { describeMistakes, failureOf, withTrained, type Mistake } from './bad-input.js';
import { textGroup } from './model-fixture.js';

// Three scores of two heads.
const good: RankingLossInput = {
  heads: 2,
  mu: Float64Array.of(1, 2, 3, 4, 5, 6),
  logSigma: Float64Array.of(0, 0, 0, 0, 0, 0),
  pairs: { chosen: Int32Array.of(0, 2), rejected: Int32Array.of(1, 1) },
  options: { loss: 'uncertainty' },
};
const pairs = (more: object): Partial<RankingLossInput> => ({ pairs: { ...good.pairs, ...more } as never });
const options = (more: object): Partial<RankingLossInput> => ({ options: { ...good.options, ...more } });
const regression = options({ loss: 'regression' });

function mistake(
  what: string,
  change: object,
  expected: RegExp,
  received: RegExp,
  advice: RegExp,
  code: Mistake['code'] = 'invalid_argument',
): Mistake {
  const make: Mistake['make'] = () => failureOf(() => rankingLoss({ ...good, ...change }));
  return { what, make, code, expected, received, advice };
}
const invalid = (what: string, change: object, name: string, received: RegExp, advice: RegExp): Mistake =>
  mistake(what, change, new RegExp(`Expected a valid \`input\\.${name}\``), received, advice);
const invalidData = (what: string, change: object, expected: RegExp, received: RegExp): Mistake =>
  mistake(what, change, expected, received, /finite/, 'bad_data');

describeMistakes('scores of rankingLoss', [
  invalid('no head', { heads: 0 }, 'heads', /received 0/, /must be >= 1/),
  invalid('half a head', { heads: 1.5 }, 'heads', /received 1\.5/, /must be an integer/),
  invalid('heads that nobody named', { heads: undefined }, 'heads', /received nothing/, /must be a number/),
  invalid(
    'scores of whole numbers',
    { mu: Int32Array.of(1, 2) },
    'mu',
    /received \{/,
    /must be numbers: a Float64Array, a Float32Array or an array/,
  ),
  mistake(
    'no scores',
    { mu: new Float64Array(0) },
    /Expected a whole number of rows of 2, at least one, for `input\.mu`/,
    /received Float64Array of 0 elements/,
    /at least one/,
  ),
  mistake(
    'a row that ends early',
    { mu: new Float64Array(5) },
    /Expected a whole number of rows of 2, at least one, for `input\.mu`/,
    /received Float64Array of 5 elements/,
    /rows of 2/,
  ),
  mistake(
    'spreads of other scores',
    { logSigma: new Float64Array(4) },
    /Expected 6 elements \(one for each of mu\) for `input\.logSigma`/,
    /received Float64Array of 4 elements/,
    /one for each of mu/,
  ),
  invalid(
    'an uncertainty without spreads',
    { logSigma: undefined },
    'logSigma',
    /received nothing/,
    /it is needed by the loss uncertainty/,
  ),
  invalidData(
    'a score that is not a number',
    { mu: Float64Array.of(1, 2, 3, NaN, 5, 6) },
    /Expected finite numbers for `input\.mu`/,
    /received NaN at index 3/,
  ),
  invalidData(
    'a spread without end',
    { logSigma: Float32Array.of(0, 0, Infinity, 0, 0, 0) },
    /Expected finite numbers for `input\.logSigma`/,
    /received an infinite one at index 2/,
  ),
  {
    what: 'scores beyond all numbers',
    make: () =>
      failureOf(() =>
        rankingLoss({
          ...good,
          mu: [1e308, 1e308, -1e308, 0, 0, 0],
          options: { loss: 'bradley_terry', fusion: 'sum' },
        }),
      ),
    code: 'non_finite',
    expected: /Expected a finite loss/,
    received: /received -?(inf|nan)/,
    advice: /Scale the scores down/,
  },
  mistake(
    'a word that it does not know',
    { sigma: [1] },
    /Expected a known option/,
    /received `input\.sigma`/,
    /logSigma/,
  ),
]);

describeMistakes('pairs of rankingLoss', [
  invalid('no pairs', { pairs: undefined }, 'pairs', /received nothing/, /it is needed by every loss but regression/),
  mistake(
    'pairs of nothing',
    pairs({ chosen: [], rejected: [] }),
    /Expected at least one score for `input\.pairs\.chosen`/,
    /received Int32Array of 0 elements/,
    /at least one/,
  ),
  mistake(
    'a winner without a loser',
    pairs({ rejected: [1] }),
    /Expected 2 elements \(as many as chosen\) for `input\.pairs\.rejected`/,
    /received Int32Array of 1 elements/,
    /as many as chosen/,
  ),
  mistake(
    'a score that is not there',
    pairs({ rejected: [1, 3] }),
    /Expected scores from 0 to 2 for `input\.pairs\.rejected`/,
    /received 3 at index 1/,
    /A score is a row of `input\.mu`/,
  ),
  mistake(
    'a score before the first',
    pairs({ chosen: [-1, 2] }),
    /Expected scores from 0 to 2 for `input\.pairs\.chosen`/,
    /received -1 at index 0/,
    /A score is a row of `input\.mu`/,
  ),
  mistake(
    'an index that would wrap',
    pairs({ chosen: [2 ** 32, 2] }),
    /Expected a valid `input\.pairs\.chosen\[0\]`/,
    /received 4294967296/,
    /must be <= 2147483647/,
  ),
  mistake(
    'a score against itself',
    pairs({ chosen: [0, 1] }),
    /Expected two scores a pair for `input\.pairs\.rejected`/,
    /received score 1 twice at index 1/,
    /does not compete with itself/,
  ),
  mistake(
    'margins of other pairs',
    pairs({ margins: [1] }),
    /Expected 2 elements \(one a pair\) for `input\.pairs\.margins`/,
    /received Float64Array of 1 elements/,
    /one a pair/,
  ),
  invalidData(
    'a margin that is not a number',
    pairs({ margins: Float64Array.of(0, NaN) }),
    /Expected finite numbers for `input\.pairs\.margins`/,
    /received NaN at index 1/,
  ),
  mistake(
    'keys of other pairs',
    pairs({ ids: [1, 2, 3] }),
    /Expected 2 elements \(one a pair\) for `input\.pairs\.ids`/,
    /received Int32Array of 3 elements/,
    /one a pair/,
  ),
  mistake(
    'a tie of a loss that knows none',
    pairs({ ties: [0, 1] }),
    /Expected preferences for `input\.pairs\.ties`/,
    /received a tie at index 1/,
    /Use the loss 'bradley_terry_ties', or leave the pair out/,
  ),
  mistake(
    'a tie that is neither',
    { ...pairs({ ties: Uint8Array.of(0, 2) }), ...options({ loss: 'bradley_terry_ties' }) },
    /Expected 0 or 1 for `input\.pairs\.ties`/,
    /received 2 at index 1/,
    /0 or 1/,
  ),
  mistake(
    'ties of other pairs',
    { ...pairs({ ties: [0, 1, 0] }), ...options({ loss: 'bradley_terry_ties' }) },
    /Expected 2 elements \(one a pair\) for `input\.pairs\.ties`/,
    /received Uint8Array of 3 elements/,
    /one a pair/,
  ),
  mistake(
    'a head that is tied where no loss knows ties',
    pairs({ labels: [1, 1, 0, 1] }),
    /Expected preferences for `input\.pairs\.labels`/,
    /received a tie at index 2/,
    /Use the loss 'bradley_terry_ties'/,
  ),
  mistake(
    'labels of one head',
    pairs({ labels: [1, 1] }),
    /Expected 4 elements \(pairs x heads\) for `input\.pairs\.labels`/,
    /received Int32Array of 2 elements/,
    /pairs x heads/,
  ),
  mistake(
    'a label that means nothing',
    pairs({ labels: [1, 1, 3, 1] }),
    /Expected labels 1 \(chosen\), -1 \(rejected\), 0 \(tie\) or 2 \(none\) for `input\.pairs\.labels`/,
    /received Int32Array of 4 elements/,
    /0 \(tie\)/,
  ),
  invalid(
    'ties beside labels',
    { ...pairs({ ties: [0, 1], labels: [1, 1, 1, 1] }), ...options({ loss: 'bradley_terry_ties' }) },
    'pairs\\.ties',
    /received \[0,1\]/,
    /a tie is the label 0/,
  ),
  mistake(
    'a margin by another name',
    pairs({ margin: [1, 1] }),
    /Expected a known option/,
    /received `input\.pairs\.margin`/,
    /Did you mean `margins`/,
  ),
]);

describeMistakes('options of rankingLoss', [
  invalid('no loss', { options: {} }, 'options\\.loss', /received nothing/, /must be one of "bradley_terry"/),
  invalid('a loss unheard of', options({ loss: 'hinge' }), 'options\\.loss', /"hinge"/, /one of "bradley_terry"/),
  invalid(
    'a fusion unheard of',
    options({ fusion: 'max' }),
    'options\\.fusion',
    /"max"/,
    /one of "mean", "min", "sum"/,
  ),
  invalid(
    'a bound of the other form by probit',
    options({ estimator: 'probit', form: 'expectation_log' }),
    'options\\.form',
    /"expectation_log"/,
    /must be log_expectation with the estimator probit/,
  ),
  invalid(
    'margins of a loss with ties',
    options({ loss: 'bradley_terry_ties', margin: 1 }),
    'options\\.margin',
    /received 1/,
    /it belongs to the losses bradley_terry and uncertainty/,
  ),
  invalid('a tie ratio of 1', options({ tieRatio: 1 }), 'options\\.tieRatio', /received 1/, /must be > 1/),
  invalid(
    'a clamp upside down',
    options({ logSigmaMin: 3 }),
    'options\\.logSigmaMin',
    /received 3/,
    /it is above logSigmaMax/,
  ),
  invalid('no nodes', options({ nodes: 0 }), 'options\\.nodes', /received 0/, /must be >= 1/),
  invalid('too many draws', options({ samples: 2e6 }), 'options\\.samples', /received 2000000/, /must be <= 1048576/),
  invalid('a seed below 0', options({ seed: -1 }), 'options\\.seed', /received -1/, /must be >= 0/),
  invalid('a centring below 0', options({ centring: -1 }), 'options\\.centring', /received -1/, /must be >= 0/),
  invalid(
    'weights of heads that are fused',
    options({ headWeights: [1, 1] }),
    'options\\.headWeights',
    /received \[1,1\]/,
    /it has no labels or targets to weigh/,
  ),
  mistake(
    'weights of other heads',
    { ...pairs({ labels: [1, 1, 1, 1] }), ...options({ headWeights: [1] }) },
    /Expected 2 elements \(one a head\) for `input\.options\.headWeights`/,
    /received an array of 1 elements/,
    /one a head/,
  ),
  invalid(
    'a weight below 0',
    { ...pairs({ labels: [1, 1, 1, 1] }), ...options({ headWeights: [1, -1] }) },
    'options\\.headWeights\\[1\\]',
    /received -1/,
    /must be >= 0/,
  ),
  invalid('a step of nothing', { stepCount: 0 }, 'stepCount', /received 0/, /must be > 0/),
  mistake(
    'an option with a slip of the pen',
    options({ marjin: 1 }),
    /Expected a known option/,
    /received `input\.options\.marjin`/,
    /Did you mean `margin`/,
  ),
  invalid(
    'regression without targets',
    regression,
    'targets',
    /received nothing/,
    /it is needed by the loss regression/,
  ),
  invalid(
    'targets of a ranking',
    { targets: [1, 1, 1, 1, 1, 1] },
    'targets',
    /received \[1,1/,
    /it is read by the loss regression alone/,
  ),
  mistake(
    'targets of other scores',
    { ...regression, targets: [1, null] },
    /Expected 6 elements \(scores x heads\) for `input\.targets`/,
    /received Float64Array of 2 elements/,
    /scores x heads/,
  ),
  invalidData(
    'a target without end',
    { ...regression, targets: Float64Array.of(1, NaN, -Infinity, 1, 1, 1) },
    /Expected finite numbers, or NaN where one is missing, for `input\.targets`/,
    /received an infinite one at index 2/,
  ),
]);

const train = (objective: object): Mistake['make'] => {
  const whole = { kind: 'ranking', loss: 'bradley_terry_ties', pairs: { chosen: [0], rejected: [1] }, ...objective };
  return () => failureOf(() => withTrained((model) => model.forwardBackward([textGroup()], [whole as Objective])));
};

describeMistakes('what a ranking objective does not read', [
  {
    what: 'ties beside labels',
    make: train({ pairs: { chosen: [0], rejected: [1], ties: [1], labels: [1] } }),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.pairs\.ties`/,
    received: /received \[1\]/,
    advice: /a tie is the label 0/,
  },
  {
    what: 'weights of heads that are fused',
    make: train({ headWeights: [2] }),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.headWeights`/,
    received: /received \[2\]/,
    advice: /it has no labels or targets to weigh/,
  },
  {
    what: 'an index that would wrap to another score',
    make: train({ pairs: { chosen: [2 ** 32], rejected: [1] } }),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.pairs\.chosen\[0\]`/,
    received: /received 4294967296/,
    advice: /must be <= 2147483647/,
  },
]);
