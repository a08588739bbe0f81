/** What a reward head asks of a model before there is one: its token, room in the embedding, and where its weights lie. */
import { GavelError } from '../errors.js';
import type { ResolvedLora } from './lora.js';
import type { JsonObject } from './model-config.js';
import { readRewardHead, rewardHeadOf, type ResolvedRewardHead, type RewardHead } from './reward-head.js';
import { findRewardToken, withRoomFor } from './reward-token.js';

export interface RewardHeadPlan {
  head: RewardHead | undefined;
  /** The model's config, with room for the reward token. */
  config: JsonObject;
  /** Rows of the embedding in the checkpoint, when the config has outgrown them. */
  storedRows: number | undefined;
  /** Folder of the head's weights; undefined for a new head. */
  weights: string | undefined;
  /** A new adapter trains the reward token's row of the frozen embedding as well. */
  withToken: (lora: ResolvedLora | undefined) => ResolvedLora | undefined;
}

/**
 * `options` ask for a new head; one that lies in the first of `folders` that has one (the adapter's,
 * then the model's) is taken as it is. `tokenizer` is the folder of the tokenizer.
 * Errors: 'invalid_argument' for a new head where there is one, or a token without a row; 'corrupt_checkpoint'.
 */
export async function planRewardHead(
  options: ResolvedRewardHead | undefined,
  config: JsonObject,
  folders: readonly string[],
  tokenizer: string | undefined,
): Promise<RewardHeadPlan> {
  let stored: RewardHead | undefined;
  let folder: string | undefined;
  for (const one of folders) {
    stored ??= await readRewardHead(one);
    if (stored !== undefined) folder ??= one;
  }
  if (stored !== undefined && options !== undefined) {
    throw new GavelError(
      'invalid_argument',
      `Expected no option \`rewardHead\` for "${folder}", which has a reward head of its own. Leave the option out, or ` +
        'remove the files of the old head.',
      { fields: { folder: folder ?? '' } },
    );
  }
  const head =
    stored ??
    (options === undefined ? undefined : rewardHeadOf(options, await findRewardToken(options.token, tokenizer)));
  if (head === undefined) {
    return { head, config, storedRows: undefined, weights: undefined, withToken: (lora) => lora };
  }
  const { tokenId } = head;
  const room = withRoomFor(config, tokenId, head.token !== undefined);
  return {
    head,
    config: room.config,
    storedRows: room.storedRows,
    weights: stored === undefined ? undefined : folder,
    withToken: (lora) => lora && { ...lora, trainableTokens: [...new Set([...lora.trainableTokens, tokenId])] },
  };
}
