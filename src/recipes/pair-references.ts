/**
 * Reference log-probs of pairs, computed once a pair and kept: the reference never changes. Memory: four bytes for each token
 * of the completions. When every pair has its own, the frozen copy of the weights is freed.
 */
import type { NativeGroup } from '../binding/contract.js';
import type { LogprobsOptions } from '../engine/model.js';
import type { PreferencePair } from './preference-pairs.js';
import type { Reference } from './reference.js';

export class PairReferences implements AsyncDisposable {
  readonly #reference: Reference;
  readonly #size: number;
  /** By index of the pair: the log-probs of chosen and rejected; none of a tie. */
  readonly #kept = new Map<number, Float32Array[]>();
  #numScored = 0;

  /** `size` is the number of pairs there are. */
  constructor(reference: Reference, size: number) {
    this.#reference = reference;
    this.#size = size;
  }

  /** Pairs scored since the process began. */
  get numScored(): number {
    return this.#numScored;
  }

  /** The groups of the pairs with `referenceLogprobs`. `ties` are pairs that will never need any. */
  async score(
    pairs: readonly PreferencePair[],
    ties: readonly number[],
    options: LogprobsOptions,
  ): Promise<NativeGroup[]> {
    for (const index of ties) this.#kept.set(index, []);
    const fresh = pairs.filter(({ index }) => !this.#kept.has(index));
    const scored = await this.#reference.score(
      fresh.map(({ group }) => group),
      options,
    );
    for (const [i, { completions }] of scored.entries()) {
      // Copied: what is kept must not hold the log-probs of the whole call.
      this.#kept.set(
        fresh[i]!.index,
        completions.map(({ referenceLogprobs }) => referenceLogprobs!.slice()),
      );
    }
    this.#numScored += fresh.length;
    if (this.#kept.size === this.#size) await this.#reference[Symbol.asyncDispose]();
    return pairs.map(({ index, group }) => {
      const kept = this.#kept.get(index)!;
      const completions = group.completions.map((completion, i) => ({ ...completion, referenceLogprobs: kept[i]! }));
      return { ...group, completions };
    });
  }

  /** Frees the frozen copy. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reference[Symbol.asyncDispose]();
  }
}
