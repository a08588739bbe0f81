/**
 * How sure a judge is: the share of its votes, or what the scores of two candidates say. Each function gives the probability
 * of the answer that was chosen, which for a choice of two is at least 1/2.
 */

/** 1 / (1 + e^-x) without overflow. */
export function sigmoid(x: number): number {
  return x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
}

/**
 * The normal distribution function. Series of erf near 0 and its continued fraction further out (Abramowitz and Stegun,
 * 7.1.6 and 7.1.14); absolute error below 1e-14.
 */
export function normalCdf(x: number): number {
  const z = Math.abs(x) / Math.SQRT2;
  const upper = z < 2 ? (1 - erfSeries(z)) / 2 : erfcFraction(z) / 2;
  return x >= 0 ? 1 - upper : upper;
}

function erfSeries(z: number): number {
  let term = z;
  let sum = z;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (2 * z * z) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-z * z) * sum;
}

function erfcFraction(z: number): number {
  let fraction = z;
  for (let k = 120; k >= 1; k--) fraction = z + k / 2 / fraction;
  return Math.exp(-z * z) / (Math.sqrt(Math.PI) * fraction);
}

/** Votes of the chosen answer over votes cast. */
export function voteConfidence({ votes, cast }: { votes: number; cast: number }): number | null {
  return cast === 0 ? null : votes / cast;
}

/** A score, or the mean and standard deviation of a Gaussian head. Sigma 0 is a plain score. */
export interface Score {
  mu: number;
  sigma: number;
}

/**
 * Probability that the first candidate is better:
 * - 'sigmoid': sigmoid(m), Bradley-Terry on the means;
 * - 'probit': Phi(m / s), the chance that one draw of the first exceeds one of the second;
 * - 'expected-sigmoid': sigmoid(m / sqrt(1 + pi s^2 / 8)), MacKay's approximation of E[sigmoid(z)] (1992);
 * with m = mu1 - mu2 and s^2 = sigma1^2 + sigma2^2. 'probit' with s = 0 is a step: 1, 1/2 or 0.
 */
export type PreferenceModel = 'sigmoid' | 'probit' | 'expected-sigmoid';

export function preferenceProbability(first: Score, second: Score, model: PreferenceModel): number {
  const m = first.mu - second.mu;
  const variance = first.sigma ** 2 + second.sigma ** 2;
  if (model === 'sigmoid') return sigmoid(m);
  if (model === 'expected-sigmoid') return sigmoid(m / Math.sqrt(1 + (Math.PI * variance) / 8));
  return variance === 0 ? (Math.sign(m) + 1) / 2 : normalCdf(m / Math.sqrt(variance));
}
