/** The loop that every training recipe is: steps, until the plan, the time budget or a stop ends them. */
import type { RecipeContext } from './context.js';
import { StepClock } from './step-clock.js';

/** Where a stage stands; the plan may shrink to fit its time budget. */
export interface StepPlan {
  step: number;
  totalSteps: number;
}

/**
 * Calls `takeStep` until `progress.step` has reached the plan or no time is left for another. `takeStep` raises
 * `progress.step` by one and does what follows a step (validation, checkpoint); 'leave' ends the loop. `evaluateEvery` is the
 * distance of validations in steps, so that the pace is measured with one. Leaves the recipe after a stop.
 */
export async function stepLoop<Progress extends StepPlan>(
  context: RecipeContext,
  progress: Progress,
  evaluateEvery: number | undefined,
  takeStep: (clock: StepClock) => Promise<'continue' | 'leave'>,
): Promise<void> {
  const clock = new StepClock(progress.totalSteps, evaluateEvery);
  while (progress.step < clock.totalSteps) {
    const startedMs = performance.now();
    if ((await takeStep(clock)) === 'leave') return;
    await context.leaveIfStopped(progress.step, () => progress);
    if (clock.record((performance.now() - startedMs) / 1000, progress.step, context.secondsLeft)) {
      context.note(`The plan was shortened to ${clock.totalSteps} steps to fit its time budget.`, {
        steps: clock.totalSteps,
      });
    }
    progress.totalSteps = clock.totalSteps;
    if (context.secondsLeft < clock.stepSeconds) return;
  }
}
