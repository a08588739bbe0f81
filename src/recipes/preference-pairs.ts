/**
 * Preference pairs as the engine trains them: one shared prompt, the chosen and the rejected completion behind it. Encoded
 * one batch ahead of the step that uses them.
 */
import { isDeepStrictEqual } from 'node:util';
import type { NativeGroup } from '../binding/contract.js';
import { pairBatches, type PairDataset, type PairRow } from '../data/pairs.js';
import type { Row } from '../data/rows.js';
import type { BatchOptions, Cursor } from '../data/shuffle.js';
import { GavelError } from '../errors.js';
import { oneAhead } from './one-ahead.js';
import type { Policy } from './policy.js';

/** A pair with a preference, as a group of two completions: chosen, rejected. */
export interface PreferencePair {
  /** In the data set. */
  index: number;
  group: NativeGroup;
}

export interface PreferenceBatch {
  pairs: PreferencePair[];
  /** Indices of pairs without a preference. */
  ties: number[];
  cursor: Cursor;
}

/** Errors: 'bad_data' for a pair whose prompts differ or that lacks a completion; for a tie where `ties` is 'fail'. */
export function preferenceBatches(
  policy: Policy,
  data: PairDataset,
  options: BatchOptions & { signal: AbortSignal; ties: 'fail' | 'skip' },
): AsyncGenerator<PreferenceBatch, void, undefined> {
  const { ties: onTie, signal, ...order } = options;
  return oneAhead(pairBatches(data, { ...order, signal }), async ({ pairs, indices, cursor }) => {
    const ties = indices.filter((_index, i) => pairs[i]!.preference === 'tie');
    if (ties.length > 0 && onTie === 'fail') {
      throw badPair(
        pairs.find(({ preference }) => preference === 'tie')!,
        'a preference',
        'a tie',
        {
          advice: "Leave ties out, or set `ties: 'skip'`.",
        },
      );
    }
    const preferred = pairs.flatMap((pair, i) => (pair.preference === 'tie' ? [] : [{ pair, index: indices[i]! }]));
    for (const { pair } of preferred) checkSharedPrompt(pair);
    const encoded = await policy.encode(
      preferred.map(({ pair }) => pair.first),
      signal,
    );
    const made = preferred.map(({ pair, index }, i): PreferencePair => {
      const { promptTokens, images, completionTokens } = encoded[i]!;
      const first = { tokens: completionTokens! };
      // The prompt and its pictures are those of the first candidate; only the text is still to be encoded.
      const second = { tokens: targetTokens(policy, pair.second) };
      const completions = pair.preference === 'first' ? [first, second] : [second, first];
      return { index, group: { promptTokens, images, completions } };
    });
    return { pairs: made, ties, cursor };
  });
}

/** Throws 'bad_data' unless both candidates answer one prompt. */
function checkSharedPrompt(pair: PairRow): void {
  const { first, second } = pair;
  for (const side of ['first', 'second'] as const) {
    if (pair[side].completion === undefined) throw badPair(pair, `a completion in \`${side}\``, 'none');
  }
  for (const part of ['prompt', 'images', 'videos'] as const) {
    if (isDeepStrictEqual(first[part], second[part])) continue;
    throw badPair(pair, `equal ${part} of both candidates`, 'different ones', {
      advice:
        'A preference loss compares answers to one prompt; candidates with pictures of their own are for a scorer.',
    });
  }
}

function targetTokens(policy: Policy, { id, completion }: Row): Int32Array {
  try {
    return policy.encodeCompletion(completion!);
  } catch (cause) {
    if (!GavelError.is(cause)) throw cause;
    throw new GavelError(cause.code, `Row "${id}": ${cause.message}`, { fields: { ...cause.fields, id }, cause });
  }
}

function badPair({ id }: PairRow, what: string, received: string, { advice = 'Correct the pair.' } = {}): GavelError {
  return new GavelError('bad_data', `Expected ${what} in pair "${id}" but received ${received}. ${advice}`, {
    fields: { id, expected: what, received },
  });
}
