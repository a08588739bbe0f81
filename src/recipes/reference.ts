/**
 * The reference policy of a stage: with an adapter the base model, its adapter switched off; else a frozen copy of the
 * weights the stage began with, whether it begins now or is resumed. Its log-probs never change.
 */
import type { NativeGroup } from '../binding/contract.js';
import type { LogprobsOptions, Model } from '../engine/model.js';
import type { RecipeContext } from './context.js';

export class Reference implements AsyncDisposable {
  readonly #model: Model;
  #copy: Model | undefined;

  private constructor(model: Model, copy: Model | undefined) {
    this.#model = model;
    this.#copy = copy;
  }

  /** Of the running stage. Without an adapter the stage must have pinned a checkpoint at its step 0 to be resumed. */
  static async open(context: RecipeContext): Promise<Reference> {
    const { model } = context.policy;
    const copy = model.adapter === undefined ? await model.freeze(context.stageStartModel()) : undefined;
    return new Reference(model, copy);
  }

  /** The groups with `referenceLogprobs` in every completion. */
  async score(groups: readonly NativeGroup[], options: LogprobsOptions): Promise<NativeGroup[]> {
    if (groups.length === 0) return [];
    const { logprobs } = await (this.#copy ?? this.#model).logprobs(groups, { ...options, adapter: 'off' });
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
    const copy = this.#copy;
    this.#copy = undefined;
    await copy?.dispose();
  }
}
