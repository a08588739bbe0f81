/**
 * Fits a number of steps to a time budget: the plan is shortened once, after the first steps have been measured, so that
 * the learning-rate schedule still ends where it should; the budget itself is a hard stop.
 */
const fewestMeasured = 10;
const mostMeasured = 50;
/** Part of what is left that the plan may use; the rest is for slower steps. */
const usableShare = 0.92;

export class StepClock {
  readonly #seconds: number[] = [];
  readonly #measuredSteps: number;
  #totalSteps: number;
  #settled: boolean;

  /**
   * `settled` when a resumed run has fixed its plan already; `period` is the distance of evaluations, so that the measured
   * steps hold one.
   */
  constructor(totalSteps: number, options: { settled?: boolean; period?: number } = {}) {
    this.#totalSteps = totalSteps;
    this.#settled = options.settled ?? false;
    this.#measuredSteps = Math.min(mostMeasured, Math.max(fewestMeasured, options.period ?? 0));
  }

  get totalSteps(): number {
    return this.#totalSteps;
  }

  get settled(): boolean {
    return this.#settled;
  }

  /** Mean seconds of the newest steps, with what stood between them. */
  get stepSeconds(): number {
    const newest = this.#seconds.slice(-mostMeasured);
    return newest.length === 0 ? 0 : newest.reduce((sum, seconds) => sum + seconds, 0) / newest.length;
  }

  /** Takes note of a step and the evaluation after it. True when this one shortened the plan. */
  record(seconds: number, step: number, budgetLeft: number): boolean {
    this.#seconds.push(seconds);
    if (this.#settled || this.#seconds.length < this.#measuredSteps) return false;
    this.#settled = true;
    const affordable = step + Math.floor((budgetLeft * usableShare) / this.stepSeconds);
    if (affordable >= this.#totalSteps) return false;
    this.#totalSteps = Math.max(step + 1, affordable);
    return true;
  }

  /** Seconds until the plan is done. */
  secondsLeft(step: number): number | null {
    return this.#seconds.length === 0 ? null : (this.#totalSteps - step) * this.stepSeconds;
  }
}
