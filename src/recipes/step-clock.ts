/**
 * Fits a number of steps to a time budget: whenever the pace of the newest steps cannot keep the plan, the plan is shortened,
 * so that the learning-rate schedule still ends where it should; the budget itself is a hard stop.
 */
const fewestMeasured = 10;
const mostMeasured = 50;
/** Part of what is left that the plan may use; the rest is for slower steps. */
const usableShare = 0.95;

export class StepClock {
  readonly #seconds: number[] = [];
  readonly #period: number;
  #totalSteps: number;

  /** `period` is the distance of evaluations, so that the measured steps hold one. */
  constructor(totalSteps: number, period = 0) {
    this.#totalSteps = totalSteps;
    this.#period = Math.min(mostMeasured, Math.max(fewestMeasured, period));
  }

  get totalSteps(): number {
    return this.#totalSteps;
  }

  /** Mean seconds of the newest steps, with what stood between them. */
  get stepSeconds(): number {
    const newest = this.#seconds.slice(-this.#period);
    return newest.length === 0 ? 0 : newest.reduce((sum, seconds) => sum + seconds, 0) / newest.length;
  }

  /** Takes note of a step and the evaluation after it. True when this one shortened the plan. */
  record(seconds: number, step: number, budgetLeft: number): boolean {
    this.#seconds.push(seconds);
    if (this.#seconds.length % this.#period !== 0) return false;
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
