/**
 * The reference policy of a stage: with an adapter the base model, its adapter switched off; else a frozen copy of the
 * weights the stage began with, whether it begins now or is resumed. Its log-probs never change.
 */
import type { NativeGroup } from '../binding/contract.js';
import type { LogprobsOptions, Model } from '../engine/model.js';
import { GavelError } from '../errors.js';
import type { RecipeContext } from './context.js';

export class Reference implements AsyncDisposable {
  /** The policy itself, scored with its adapter off, or the frozen copy; undefined once freed. */
  #scorer: Model | undefined;
  readonly #isCopy: boolean;

  private constructor(scorer: Model, isCopy: boolean) {
    this.#scorer = scorer;
    this.#isCopy = isCopy;
  }

  /** Of the running stage. Without an adapter the stage must have pinned a checkpoint at its step 0 to be resumed. */
  static async open(context: RecipeContext): Promise<Reference> {
    const { model } = context.policy;
    if (model.adapter !== undefined) return new Reference(model, false);
    return new Reference(await model.freeze(context.stageStartModel()), true);
  }

  /** The groups with `referenceLogprobs` in every completion. */
  async score(groups: readonly NativeGroup[], options: LogprobsOptions): Promise<NativeGroup[]> {
    if (groups.length === 0) return [];
    if (this.#scorer === undefined) throw new GavelError('disposed', 'The reference was disposed of. Open a new one.');
    const { logprobs } = await this.#scorer.logprobs(groups, { ...options, adapter: 'off' });
    let at = 0;
    return groups.map((group) => ({
      ...group,
      completions: group.completions.map((completion) => ({
        ...completion,
        referenceLogprobs: logprobs.subarray(at, (at += completion.tokens.length)),
      })),
    }));
  }

  /** Frees the copy. */
  async [Symbol.asyncDispose](): Promise<void> {
    const scorer = this.#scorer;
    this.#scorer = undefined;
    if (this.#isCopy) await scorer?.dispose();
  }
}
