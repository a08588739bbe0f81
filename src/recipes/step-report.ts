/** What every training step leaves behind: one line of metrics, one event, and a typed error when steps keep failing. */
import type { NativeOptimizerResult } from '../binding/contract.js';
import { GavelError } from '../errors.js';
import type { RecipeContext } from './context.js';
import type { StepClock } from './step-clock.js';

const mostSkipped = 5;

export interface StepFacts {
  step: number;
  clock: StepClock;
  startedMs: number;
  loss: number;
  reward: number | null;
  learningRate: number;
  update: Pick<NativeOptimizerResult, 'gradNorm' | 'applied'>;
  /** Tokens sampled and trained. */
  tokens: number;
  metrics: Record<string, number>;
}

export class StepReporter {
  readonly #context: RecipeContext;
  #skipped = 0;

  constructor(context: RecipeContext) {
    this.#context = context;
  }

  /** Logs and tells one step. Errors: 'non_finite' after five steps in a row whose gradient was not finite. */
  async report(facts: StepFacts): Promise<void> {
    const { step, clock, startedMs, loss, reward, learningRate, update, tokens } = facts;
    const context = this.#context;
    const stepSeconds = (performance.now() - startedMs) / 1000;
    context.countTokens(tokens);
    const metrics: Record<string, number> = {
      ...facts.metrics,
      loss,
      learning_rate: learningRate,
      grad_norm: update.gradNorm,
      num_tokens: tokens,
      step_time: stepSeconds,
    };
    context.run?.logMetrics({ stage: context.stage, step, ...metrics });
    const planned = clock.secondsLeft(step);
    context.emit({
      type: 'step-end',
      stage: context.stage,
      step,
      totalSteps: clock.totalSteps,
      loss,
      reward,
      learningRate,
      gradNorm: update.gradNorm,
      applied: update.applied,
      tokensPerSecond: tokens / stepSeconds,
      stepSeconds,
      secondsLeft: planned === null ? null : Math.min(planned, Math.max(0, context.secondsLeft)),
      metrics,
    });
    await context.run?.flush();
    this.#skipped = update.applied ? 0 : this.#skipped + 1;
    if (!update.applied) context.note('The gradient was not finite; the step was left out.', { step });
    if (this.#skipped < mostSkipped) return;
    throw new GavelError(
      'non_finite',
      `Expected a finite gradient but received ${mostSkipped} steps in a row that were not (stage ${context.stage}, step ${step}). ` +
        'Lower the learning rate, or look for extreme values in the data.',
      { fields: { stage: context.stage, step } },
    );
  }
}
