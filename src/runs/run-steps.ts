/**
 * One axis for all stages of a run: the steps that stand before the stage, plus the stage's own. A stage that goes back to an
 * earlier step goes back on the axis too.
 */
export class RunSteps {
  readonly #bases = new Map<string, number>();
  #last = 0;

  /** Run-wide step of `step` of `stage`; calls come in the order in which the steps were taken. */
  of(stage: string, step: number): number {
    let base = this.#bases.get(stage);
    if (base === undefined) this.#bases.set(stage, (base = this.#last));
    return (this.#last = base + step);
  }

  /** As `of` for a line of metrics; lines without stage or step stand at the newest step. */
  ofLine(line: Readonly<Record<string, unknown>>): number {
    const { stage, step } = line;
    if (typeof step !== 'number' || !Number.isSafeInteger(step) || step < 0) return this.#last;
    return this.of(typeof stage === 'string' ? stage : '', step);
  }

  /** The newest run-wide step. */
  get last(): number {
    return this.#last;
  }
}
